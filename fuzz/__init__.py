"""Files made up by a fuzzer, fed to the readers that meet strangers' files: `make fuzz`."""
