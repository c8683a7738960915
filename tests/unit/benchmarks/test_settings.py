import pytest
from pydantic import ValidationError

from benchmarks.settings import changed
from glintru_model.config import SasrecRecommender


def test_a_change_goes_where_a_setting_of_its_name_is_and_leaves_the_others():
    found = changed(SasrecRecommender(), {"num_blocks": 3, "label_smoothing": 0.1})
    assert (found.architecture.num_blocks, found.training.label_smoothing) == (3, 0.1)
    assert changed(found, {"num_blocks": 2, "label_smoothing": 0.0}) == SasrecRecommender()


def test_a_name_that_is_no_setting_is_refused():
    with pytest.raises(ValidationError, match="num_block"):
        changed(SasrecRecommender(), {"num_block": 3})
