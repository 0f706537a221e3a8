"""What may be named is what there is."""

import pytest

from quickstudy.encoders import built_in_encoder
from quickstudy.heads import HEADS, LEARNED_HEADS
from quickstudy.names import HEAD_NAMES, check_names, is_built_in


def test_the_names_of_heads_are_those_that_are_built() -> None:
    assert (*HEADS, *LEARNED_HEADS) == HEAD_NAMES


@pytest.mark.parametrize("name", ["drawing", "drawing:14", "pixels:8", "grey:8", "inverted:2048"])
def test_what_is_built_in_has_its_name(name: str) -> None:
    encoder = built_in_encoder(name)
    assert is_built_in(name)
    assert encoder is not None
    assert encoder.name == name


@pytest.mark.parametrize("name", ["drawing:", "drawing:0", "pixels", "pixels:x", "grey:2049", ""])
def test_what_is_not_built_in_is_refused(name: str) -> None:
    assert built_in_encoder(name) is None
    with pytest.raises(ValueError, match=f"there is no encoder {name!r}"):
        check_names(encoder=name)


def test_what_may_be_elsewhere_is_not_refused(tmp_path: object) -> None:
    for encoder in ("timm:resnet18", "hf:some/model", "sentence:any", str(tmp_path)):
        check_names(encoder=encoder, head=str(tmp_path), device="cuda:7")
    check_names(head="protonet-omniglot", device="auto")
    with pytest.raises(FileNotFoundError, match="there is no head 'none'; there are: logistic, "):
        check_names(head="none")
    with pytest.raises(ValueError, match="there is no device 'cuda:x' here"):
        check_names(device="cuda:x")
