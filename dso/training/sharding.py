"""A base model too large for one GPU: its weights are spread over the processes, block by block.

    memory of a process = base / W + one decoder block + adapter + its own batch

Every decoder block, and what is outside of them as one more, is sharded by torch's `fully_shard`
(FSDP2): its weights are gathered when it runs, forward or backward, and freed behind it. The
adapter is not sharded: its few vectors stay whole, float32 and trainable in every process, whatever
the base's dtype. `ShardedStrategy` averages their gradients; checkpoints and adapter folders are
those of a run in one process.

Gathering takes all processes. They must run as many forward passes as one another, with gradients
and without, whatever their batches hold: see `Policy.anyone`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning.pytorch.strategies import DDPStrategy
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from transformers.modeling_layers import GradientCheckpointingLayer

from dso.steering.backbone import language_backbone
from dso.training import processes
from dso.training.module import SteeringModule


class ShardedStrategy(DDPStrategy):
    """Lightning's strategy for a `SteeringModule` whose base is spread over all processes.

    It starts the processes as `ddp` does, on one machine or several. Every process first reads the
    whole base into its machine's memory.
    """

    def model_to_device(self) -> None:
        """Shard the base, then move what is left.

        Raises:
            TypeError: another module than a `SteeringModule`.
            ValueError: as `shard`.
        """
        module = self.lightning_module
        if not isinstance(module, SteeringModule):
            raise TypeError(
                f"ShardedStrategy shards the base of a SteeringModule, got {type(module).__name__}"
            )
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        shard(module.adapted, mesh)
        module.policy.anyone = processes.anyone
        super().model_to_device()

    def configure_ddp(self) -> None:
        """Nothing is wrapped: `post_backward` does what the wrapper would."""

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the adapter's gradients, before they are checked, clipped and used."""
        assert self.lightning_module is not None
        average_gradients(p for p in self.lightning_module.parameters() if p.requires_grad)

    def teardown(self) -> None:
        """As for other strategies, but the shards stay on the devices they belong to."""
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def shard(adapted: PeftModel, mesh: DeviceMesh) -> None:
    """Spread the frozen base of a steered model over processes, in place.

    What is trained is left as and where it is. Call the model itself afterwards, or its `generate`,
    not its inner modules, whose weights are gathered only inside such a call.

    Args:
        adapted: a model with a steering adapter, the same in all processes, on any device.
        mesh: of one dimension, the processes that share the base.

    Raises:
        ValueError: quantised weights, or no decoder blocks.
    """
    if getattr(adapted.get_base_model(), "is_quantized", False):
        raise ValueError(
            "a quantised base cannot be sharded; set loading.quantisation to none, or train with "
            "the whole base on each GPU (strategy ddp)"
        )
    backbone = language_backbone(adapted)
    blocks = [m for m in backbone.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not blocks:
        raise ValueError(
            f"{type(backbone).__name__} has no decoder blocks to shard; train it with the whole "
            "base on each GPU (strategy ddp)"
        )
    trained = {p for p in adapted.parameters() if p.requires_grad}
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=trained)
    # The root is what is called: peft passes by the modules between itself and the backbone.
    fully_shard(adapted, mesh=mesh, ignored_params=trained)
    register_fsdp_forward_method(adapted, "generate")
    # Embeddings are also looked up alone, before the model is called (`dso.virtual`).
    adapted.get_input_embeddings().register_forward_pre_hook(lambda *_: adapted.unshard())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Put the mean of all processes' gradients into `grad`, in one message.

    Args:
        parameters: whole in every process, in the same order. One without a gradient counts as 0.
    """
    trained = list(parameters)
    if processes.world_size() == 1 or not trained:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = processes.mean(torch.cat([gradient.flatten() for gradient in gradients]))
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for parameter, piece in zip(trained, pieces, strict=True):
        parameter.grad = piece.view_as(parameter).clone()
