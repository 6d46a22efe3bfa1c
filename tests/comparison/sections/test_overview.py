"""The first screen of the report: the command for what is recommended."""

from types import SimpleNamespace

import pandas as pd
import pytest

from pipeline.comparison.sections import overview
from pipeline.markup.document import Text

Y = [0, 1, 2] * 20
POOR = [(code + 1) % 3 if i % 5 < 2 else code for i, code in enumerate(Y)]


@pytest.fixture
def lines(make_predictions, make_data):
    """Return a function that returns the paragraphs of the first screen where `best` has no error."""

    def make(best, **fields):
        predicted = {"softmax": POOR, "svm": POOR, "histogram_svm": POOR, "knn": POOR} | {best: Y}
        data = make_data(make_predictions(Y, predicted, group=[f"g{i % 12}" for i in range(60)]), **fields)
        assert data.verdict.recommended == best
        return [block.text for block in overview.result(data).blocks if isinstance(block, Text)]

    return make


@pytest.mark.parametrize("head", ["histogram_svm", "svm"])
def test_the_command_for_what_is_recommended(lines, head):
    assert f"For new tiles: python -m pipeline.predict --head {head} --tiles FOLDER --run RUN." in lines(head)
    plan = lines(head, protocol=SimpleNamespace())[0]
    assert plan.endswith("--run RUN, where RUN is a folder in parts/, with one network.")


def test_a_baseline_that_robustness_does_not_test(lines):
    untested = "The section on robustness does not test it."
    assert untested in lines("histogram_svm", corrupted=pd.DataFrame({"head": ["softmax", "svm"]}))
    assert untested not in lines("svm", corrupted=pd.DataFrame({"head": ["softmax", "svm"]}))
    assert untested not in lines("histogram_svm")


def test_what_has_no_file_has_no_command(lines):
    assert not any("pipeline.predict" in line for line in lines("knn"))
