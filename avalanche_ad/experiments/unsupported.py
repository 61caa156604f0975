"""What of Avalanche cannot work on anomaly streams, and why, in a line each."""

from __future__ import annotations

from pathlib import Path

from avalanche_ad.errors import RecipeError
from avalanche_ad.registry import dotted_path
from avalanche_ad.training.plugins.registry import PLUGINS

__all__ = ["UNSUPPORTED", "UNSUPPORTED_ARGUMENTS", "find_plugin", "resolve"]

_LAST_LINEAR = "it {} a classifier's last Linear layer, and a flow-GMM has none"
_OWN_MODEL = "it builds {} of its own and takes no other model"
_OTHER_MODEL = "it refuses every model but Avalanche's {}"
_CLASS_MEANS = (
    "it sets the class means of model.eval_classifier, a nearest-mean classifier, and "
    "a flow-GMM has none"
)
_GREEDY = (
    "its memory needs the number of features of an image beforehand, and while it is "
    "not full it replays blank images as category 0"
)
_RESET = (
    "it can reset an optimizer of one parameter group alone, and here the mixtures "
    "have groups of their own; set it to false"
)
_SI = (
    "on a CPU its penalty is always zero, for what it notes of the parameters is no "
    "copy; take avalanche_ad.training.plugins.SynapticIntelligencePlugin"
)
_LABEL_0 = (
    "with the model as its own generator it labels every sample 0; take "
    "avalanche_ad.training.plugins.SelfGenerativeReplayPlugin"
)

UNSUPPORTED: dict[str, str] = {
    "AETraining": "it trains an autoencoder and shows its criterion no categories",
    "AR1": _OWN_MODEL.format("a MobileNet"),
    "BiC": _LAST_LINEAR.format("corrects the bias of"),
    "BiCPlugin": _LAST_LINEAR.format("corrects the bias of"),
    "CWRStar": _LAST_LINEAR.format("consolidates the rows of"),
    "CWRStarPlugin": _LAST_LINEAR.format("consolidates the rows of"),
    "CoPE": _LAST_LINEAR.format("normalizes the output of"),
    "CoPEPlugin": _LAST_LINEAR.format("normalizes the output of"),
    "CurrentDataFeCAMUpdate": _CLASS_MEANS,
    "CurrentDataNCMUpdate": _CLASS_MEANS,
    "ER_ACE": (
        "from the second experience its cross entropy takes the place of the "
        "likelihood, and with nothing to bound the outputs it becomes NaN"
    ),
    "ER_AML": (
        "it needs a feature extractor beside the model, and from the second experience "
        "its contrastive loss takes the place of the likelihood"
    ),
    "ExpertGateStrategy": _OTHER_MODEL.format("ExpertGate"),
    "FeCAMOracle": _CLASS_MEANS,
    "FeatureReplay": _LAST_LINEAR.format("replays features into"),
    "GSS_greedy": _GREEDY,
    "GSS_greedyPlugin": _GREEDY,
    "GenerativeReplay": (
        "its generator is a network for images of 28 x 28 pixels; take "
        "avalanche_ad.training.plugins.SelfGenerativeReplayPlugin"
    ),
    "GenerativeReplayPlugin": _LABEL_0,
    "ICaRL": _OWN_MODEL.format("a feature extractor with two classifiers"),
    "LFL": _LAST_LINEAR.format("freezes"),
    "LFLPlugin": _LAST_LINEAR.format("freezes"),
    "LaMAML": (
        "one version needs the package higher, which Avalanche does not install, the "
        "other calls the model with task labels, which a flow-GMM does not take"
    ),
    "LearningToPrompt": _OWN_MODEL.format("a vision transformer"),
    "MemoryFeCAMUpdate": _CLASS_MEANS,
    "MemoryNCMUpdate": _CLASS_MEANS,
    "NCMOracle": _CLASS_MEANS,
    "ObjectDetectionTemplate": "it trains detectors on bounding boxes",
    "PNNStrategy": _OTHER_MODEL.format("PNN"),
    "PackNet": (
        "it puts the plugins it is given into a list inside its own and so loses them; "
        "take Naive with avalanche_ad.training.plugins.PackNetPlugin"
    ),
    "RARPlugin": (
        "it traces the model with torch.fx, which fails on a flow-GMM, and clamps "
        "features to the range of pixels"
    ),
    "SCR": _OTHER_MODEL.format("SCRModel"),
    "StreamingLDA": "it fits discriminants to fixed features and trains no model",
    "SynapticIntelligence": _SI,
    "SynapticIntelligencePlugin": _SI,
    "TrainGeneratorAfterExpPlugin": (
        "it trains a second model as the generator, and a flow-GMM is its own"
    ),
    "VAETraining": "it trains an autoencoder and shows its criterion no categories",
}
"""Name of a strategy or plugin class of Avalanche → reason."""

UNSUPPORTED_ARGUMENTS: dict[str, tuple[str, object, str]] = {
    "FeatureDistillationPlugin": (
        "mode",
        "mse",
        "Avalanche 0.6 gives the loss an argument it does not take; set it to 'cosine'",
    ),
    "FromScratchTraining": ("reset_optimizer", True, _RESET),
    "FromScratchTrainingPlugin": ("reset_optimizer", True, _RESET),
}
"""Name of a class that else works → argument, refused value, reason."""


def resolve(
    path: object, bases: tuple[type, ...], what: str, folder: Path | None = None
) -> type:
    """Return the class a dotted path names, unless it is known to break here.

    See :func:`avalanche_ad.registry.dotted_path.resolve`.
    """
    _refuse_unsupported(path, what)
    return dotted_path.resolve(path, bases, what, folder)


def find_plugin(name: str, folder: Path | None = None) -> type:
    """Return the plugin class of a name, unless it is known to break here.

    :param name: that of a class of this package, an entry point or a dotted path.
    :param folder: that of the recipe's file.
    :raises RecipeError: when there is none, or it is known to break.
    """
    _refuse_unsupported(name, PLUGINS.sort)
    return PLUGINS.find(name, folder)


def _refuse_unsupported(path: object, what: str) -> None:
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if name in UNSUPPORTED and module.startswith("avalanche."):
        raise RecipeError(f"{what} {path!r} cannot work here: {UNSUPPORTED[name]}")
