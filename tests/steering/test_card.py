from dso.steering.card import markdown_rows, model_card
from dso.steering.config import SteeringConfig


def test_measurements_begin_with_what_they_are_about():
    rows = [{"bias": 0.5142, "split": "held out", "strength": 0.0}, {"split": "x", "kl": 1e-4}]
    assert markdown_rows(rows).splitlines() == [
        "| strength | split | bias | kl |",
        "| --- | --- | --- | --- |",
        "| 0 | held out | 0.5142 |  |",
        "|  | x |  | 0.0001 |",
    ]
    assert markdown_rows([]) == markdown_rows(None) == "Nothing was recorded."


def test_the_card_names_the_base_and_says_what_folds():
    names = ["layers.0.norm", "layers.1.norm"]
    config = SteeringConfig(
        base_model_name_or_path="someone/base",
        revision="v1",
        target_modules=names,
        shift_modules=names[:1],
        num_norms=3,
        hidden_size=8,
        foldable=True,
    )
    card = model_card(config, class_name="LlamaForCausalLM")
    front = card.split("---")[1]
    assert "base_model: someone/base" in front and "library_name: dso" in front
    assert "behind 2 norm layers of the frozen base model, revision v1" in card
    assert "The shift b is behind 1 of them." in card
    assert "dso fold" in card
    config.foldable = False
    assert "dso fold" not in model_card(config, class_name="LlamaForCausalLM")
