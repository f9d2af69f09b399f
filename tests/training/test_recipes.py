"""Settings in words become recipes; what contradicts itself is told."""

from __future__ import annotations

import pytest

from glraster.errors import UsageError
from glraster.training.recipes import architecture_settings, choose_recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet50", {"backbone": "resnet50"}),
        ("resnet34, stem=64,width=32", {"backbone": "resnet34", "stem": 64, "width": 32}),
        ("backbone=resnet18,mode=full", {"backbone": "resnet18", "mode": "full"}),
        ("backbone=lite0", {"backbone": "lite0", "stem": 32}),
    ],
)
def test_a_network_in_words(text: str, expected: dict[str, object]) -> None:
    recipe = choose_recipe("fast", architecture_settings(text))
    assert {key: getattr(recipe, key) for key in expected} == expected


@pytest.mark.parametrize("text", ["vgg", "resnet50,batch=3", "width", ""])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--arch does not know .*: use resnet18, .* or KEY=VALUE for"):
        architecture_settings(text)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("class_weights=sqrt", "sqrt"), ("class_weights=[1, 2.5]", (1.0, 2.5)), ("class_weights=none", "none")],
)
def test_class_weights_are_a_word_or_numbers(setting: str, expected: object) -> None:
    assert choose_recipe("fast", [setting]).class_weights == expected


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("class_weights=half", "class_weights 'half' .none, sqrt, inverse, or a list of numbers"),
        ("class_weights=[a]", "could not convert"),
        ("class_weights=3", "3 is no str"),
        ("mode=global", "mode global of the stage joint .add --set stages=global"),
        ("coarse_to_fine=1", "1 is no bool"),
        ("stages=[joint,joint]", "stages .* .at least one, each once"),
        ("mode=tiles", "mode tiles of the stage joint .add --set stages=tiles"),
        ("stages=[joint,tiles]", "stages .* .tiles alone: nothing goes on from it"),
        ("freeze=6", "freeze 6 .at most 5, the whole backbone"),
        ("backbone_rate=0", "backbone_rate 0.0 .at least"),
        ("stages=[]", "stages .* .at least one, each once"),
    ],
)
def test_impossible_settings_are_told(setting: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        choose_recipe("fast", [setting])


def test_lite_has_one_stem() -> None:
    assert choose_recipe("paper", ["backbone=lite2"]).stem == 32
    with pytest.raises(UsageError, match="stem 64 of lite2, which has 32 channels there"):
        choose_recipe("paper", ["backbone=lite2", "stem=64"])
