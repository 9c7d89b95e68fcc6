"""One run of the library's own path, from prepared data to a finished run, with everything recorded that can be."""

from importlib.util import find_spec

import pytest

from tests.support.stores import in_force
from tests.support.techniques import TECHNIQUES
from tests.support.trained import prepare_data


@pytest.fixture(scope="session")
def recorded(tmp_path_factory, tiny):
    """A LoRA run of a tiny BERT with its gradients clipped hard: its MLflow id, its artifacts and its folder."""
    import mlflow

    from common.training.fit import fit
    from common.training.settings import RunArgs

    folder = tmp_path_factory.mktemp("recorded")
    prepare_data(folder)
    args = RunArgs(
        model_checkpoint=tiny("bert"),
        data_dir=str(folder / "data"),
        max_length=96,
        doc_stride=16,
        batch_size=2,
        max_grad_norm=0.01,
        logging_steps=2,
        gradient_norms=True,
        report_to=["mlflow", *(["wandb"] if find_spec("wandb") else [])],
        output_dir=str(folder / "out"),
        precision="fp32",
    )
    with in_force(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(folder))
        if "wandb" in args.report_to:
            import wandb

            # It reads its environment once.
            wandb.teardown()
        run_id = fit(TECHNIQUES["lora"](), args)
        artifacts = mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(folder / "artifacts"))
        run = mlflow.get_run(run_id)
    return run, artifacts, folder
