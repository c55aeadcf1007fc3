from pathlib import Path

import pytest

from benchmarks.baselines import checkpoint
from gram.models.config import ZOO
from gram.models.tasks import TASKS
from gram.models.training.recipe import ConfigError, TrainingConfig, load_training_config

STAGE = '[[stages]]\nname = "only"\nupdates = 10\nlr = 1e-3\n'
MODEL = "[model]\ndim = 16\n"
RECIPE = f'task = "nqueens-8"\n{STAGE}{MODEL}'


def load(folder: Path, content: str | bytes) -> TrainingConfig:
    path = folder / "train.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_training_config(path)


def test_a_recipe_takes_the_task_s_sizes_and_the_documented_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, RECIPE)
    assert (config.model.vocab_size, config.model.seq_len, config.model.dim) == (3, 64, 16)
    assert (config.beta, config.kl_balance, config.stages[0].warmup) == (1.0, 0.8, 200)


def test_updates_are_those_of_all_stages(tmp_path: Path) -> None:
    assert load(tmp_path, f'task = "nqueens-8"\n{STAGE}{STAGE}{MODEL}').updates == 20


@pytest.mark.parametrize("path", sorted(ZOO.parent.glob("*/*/train.toml")), ids=lambda path: path.parent.name)
def test_every_bundled_recipe_is_valid_and_lies_in_a_folder_named_after_its_task(path: Path) -> None:
    assert path.parent.name.startswith(load_training_config(path).task)


@pytest.mark.parametrize("path", sorted(ZOO.parent.glob("baselines/*/train.toml")), ids=lambda path: path.parent.name)
def test_what_gram_is_compared_with_trains_as_long_and_applies_its_core_as_often(path: Path) -> None:
    compared = load_training_config(path)
    gram = load_training_config(checkpoint(compared.task, "gram") / "train.toml")
    assert (compared.updates, compared.batch_size) == (gram.updates, gram.batch_size)
    steps = {"low_steps", "transitions", "supervision_steps"}
    assert compared.model.model_dump(include=steps) == gram.model.model_dump(include=steps)
    deterministic = path.parent.name.removeprefix(f"{compared.task}-") in ("trm", "hrm", "looped")
    assert (compared.model.guidance == "none") == deterministic


def test_there_is_a_bundled_recipe_for_every_task_but_that_of_imported_models() -> None:
    assert {path.parent.name for path in ZOO.glob("*/train.toml")} >= set(TASKS) - {"maze-30x30"}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param(f"{STAGE}{MODEL}", "task None", id="no task"),
        pytest.param(
            RECIPE.replace("queens-8", "queens-99"), "unknown task 'nqueens-99'; known tasks: nqueens-8", id="other task"
        ),
        pytest.param(RECIPE.replace('"nqueens-8"', "8"), "task 8", id="a number for a task"),
        pytest.param(RECIPE.replace('"nqueens-8"', '["nqueens-8"]'), "task", id="a list for a task"),
        pytest.param(f'task = "nqueens-8"\n{MODEL}', "stages", id="no stages"),
        pytest.param(f'task = "nqueens-8"\nstages = []\n{MODEL}', "stages", id="empty stages"),
        pytest.param(f"{RECIPE}[head]\nsteps = 3", "head", id="unknown table"),
        pytest.param(f"momentum = 1\n{RECIPE}", "momentum", id="unknown key"),
        pytest.param(RECIPE.replace("lr =", "rate ="), "stages.0.rate", id="unknown key of a stage"),
        pytest.param(RECIPE.replace("dim =", "width ="), "model.width", id="unknown key of the model"),
        pytest.param(f"{RECIPE}[heads]\ndepth = 3", "heads.depth", id="unknown key of the heads"),
        pytest.param(RECIPE.replace("updates = 10", "updates = 0"), "stages.0.updates", id="no updates"),
        pytest.param(RECIPE.replace("1e-3", "-1.0"), "stages.0.lr", id="negative rate"),
        pytest.param(RECIPE.replace("1e-3", '"fast"'), "stages.0.lr", id="text for a rate"),
        pytest.param(RECIPE.replace("lr =", "prior_share = 1.5\nlr ="), "stages.0.prior_share", id="share above one"),
        pytest.param(f"kl_balance = -0.1\n{RECIPE}", "kl_balance", id="negative share"),
        pytest.param(f"beta = nan\n{RECIPE}", "beta", id="not a number"),
        pytest.param(f"batch_size = 0\n{RECIPE}", "batch_size", id="no rows"),
        pytest.param(f'dtype = "float16"\n{RECIPE}', "dtype", id="unknown dtype"),
        pytest.param(RECIPE.replace("dim = 16", "dim = 0"), "model.dim", id="bad size"),
        pytest.param(f'model = "small"\ntask = "nqueens-8"\n{STAGE}', "model", id="text for the model"),
        pytest.param(f"{RECIPE}seq_len = 16", "model", id="sizes of another task"),
        pytest.param(RECIPE.replace("lr = 1e-3", "lr ="), "line 5", id="broken TOML"),
        pytest.param(f"sees_neighbours = true\n{RECIPE}mixer_dim = 100", "sees_neighbours needs", id="filters that don't fit"),
        pytest.param(b'task = "\xff"', "", id="not UTF-8"),
    ],
)
def test_a_bad_recipe_is_refused_with_the_file_and_the_key(tmp_path: Path, content: str | bytes, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'train.toml'}: ")
    assert named in message.removeprefix(str(tmp_path))


def test_every_bad_key_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"momentum = 1\n{RECIPE}".replace("updates = 10", "updates = 0"))
    assert "momentum: " in str(caught.value)
    assert "stages.0.updates: " in str(caught.value)


def test_a_missing_recipe_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml.*No such file"):
        load_training_config(tmp_path / "nowhere.toml")
