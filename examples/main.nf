// The stages of histoheads as Nextflow processes. All stages work in one run folder, whose path is passed on.
//   nextflow run examples/main.nf --data /path/to/my_tiles --run_folder /path/to/reports/mine
// A stage that is current does nothing, and a killed stage continues.

params.data = 'demo'
params.run_folder = "${launchDir}/reports/mine"
params.options = ''  // for example "--group-regex '(slide[0-9]+)_'"
// Exit code 3 means finished with skipped inputs. Nextflow accepts only 0.

process PREPARE {
    cpus 2

    input:
    val run_folder

    output:
    val run_folder

    script:
    """
    histoheads prepare --run '${run_folder}' --data '${params.data}' ${params.options} || [ \$? -eq 3 ]
    """
}

process TRAIN {
    cpus 2

    input:
    val run_folder

    output:
    val run_folder

    script:
    """
    histoheads train --run '${run_folder}' --threads ${task.cpus} || [ \$? -eq 3 ]
    """
}

process EXTRACT {
    cpus 2

    input:
    val run_folder

    output:
    val run_folder

    script:
    """
    histoheads extract --run '${run_folder}' --threads ${task.cpus} || [ \$? -eq 3 ]
    """
}

process BASELINES {
    cpus 2

    input:
    val run_folder

    output:
    val run_folder

    script:
    """
    histoheads baselines --run '${run_folder}' --threads ${task.cpus} || [ \$? -eq 3 ]
    """
}

process FIT_HEADS {
    cpus 2

    input:
    val run_folder

    output:
    val run_folder

    script:
    """
    histoheads fit_heads --run '${run_folder}' --threads ${task.cpus} || [ \$? -eq 3 ]
    """
}

process ROBUSTNESS {
    cpus 2

    input:
    val run_folder

    output:
    val run_folder

    script:
    """
    histoheads robustness --run '${run_folder}' --threads ${task.cpus} || [ \$? -eq 3 ]
    """
}

process REPORT {
    cpus 2

    input:
    val run_folder

    output:
    val run_folder

    script:
    """
    histoheads report --run '${run_folder}'  || [ \$? -eq 3 ]
    """
}

workflow {
    channel.of(params.run_folder) | PREPARE | TRAIN | EXTRACT | BASELINES | FIT_HEADS | ROBUSTNESS | REPORT
}
