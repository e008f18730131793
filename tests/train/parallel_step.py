"""One data-parallel step, run by `test_runs` with one process and with two: writes loss, gradients and centres."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from training import small_dataset, small_recipe

from fer_edge.train.augment import augment_faces
from fer_edge.train.batches import DeviceSplits, seeded
from fer_edge.train.distributed import all_reduce_sum, processes
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.frame_stage import Batch, FrameTask
from fer_edge.train.run_folder import TrainRun


def main(folder: Path) -> None:
    recipe, dataset = small_recipe(), small_dataset()
    with processes("cpu") as peers:
        run = TrainRun.create(folder / f"run-{peers.world}-{peers.rank}", recipe, dataset)
        torch.manual_seed(0)
        module = FrameClassifier(*run.new_model())
        splits = DeviceSplits.load(dataset, recipe, peers.device)
        task, train = FrameTask(module=module, splits=splits, recipe=recipe, peers=peers), splits.train
        parallel = torch.nn.parallel.DistributedDataParallel(module) if peers.world > 1 else module
        index = torch.arange(32)
        part = peers.part(32)
        faces = augment_faces(train.images[index], recipe.augment, seeded(peers.device, 5), part)
        module.eval()
        rows = index[part]
        batch = Batch(faces=faces, targets=train.targets[rows], labels=train.labels[rows])
        loss, output = task.loss(parallel, batch)
        loss.backward()
        task.after_step(batch, output)
        total = loss.detach().clone()
        all_reduce_sum(total)
        if peers.leads:
            tensors = {
                name: value.grad.contiguous() for name, value in module.named_parameters() if value.grad is not None
            }
            tensors |= {"loss": total / peers.world, "centres": task.centres.centres}
            save_file(tensors, folder / f"step-{peers.world}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
