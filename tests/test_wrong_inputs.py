"""What happens to wrong inputs: one line that helps, a code, never a traceback.

``python -m pytest tests/test_wrong_inputs.py --write-docs`` writes the messages to
``docs/wrong_inputs.md``.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image, ImageOps
from safetensors.numpy import save_file

from avalanche_ad.datasets.readers.mvtec_ad import MVTEC_AD_CATEGORIES
from avalanche_ad.experiments import run_state
from avalanche_ad.experiments.results import WORKING_MARKER

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "wrong_inputs.md"
FOLDER = """\
title = "Own"
dataset = "folder"
classes_per_experience = 1
image_size = 80
mask_size = 32
"""
LEARNER = 'title = "Own"\nsummary = "Own."\n'


class Place:
    """A folder to make a mistake in, and what a command needs besides."""

    def __init__(self, folder, cli, process, stream, run, monkeypatch, png16):
        self.folder = folder
        self.cli = cli
        self.process = process
        self.stream = stream
        self.trained = run
        self.monkeypatch = monkeypatch
        self.png16 = png16

    def __truediv__(self, name):
        return self.folder / name

    def write(self, name, content=""):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def image(self, name, size=(80, 80)):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(list(name.encode())).integers(0, 256, (*size, 3))
        Image.fromarray(noise.astype(np.uint8)).save(path)
        return path

    def mask(self, name, size=80):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((size, size), dtype=np.uint8)
        pixels[8:20, 8:20] = 255
        Image.fromarray(pixels).save(path)
        return path

    def data(self):
        """A sound data set of two categories."""
        for category in ("bolt", "gear"):
            for name in ("train/good/0", "train/good/1", "test/good/0", "test/hole/0"):
                self.image(f"set/{category}/{name}.png")
            self.mask(f"set/{category}/ground_truth/hole/0_mask.png")
        return self.folder / "set"

    def run(self, *arguments, stream=None):
        """Run on the tiny stream or another one; the last arguments count."""
        out = ("--out", self / "run") if "--out" not in arguments else ()
        learner = ("-s", "naive") if "-s" not in arguments else ()
        stream = ("-b", stream or self.stream)
        return self.cli("run", *stream, *learner, *out, *arguments)

    def run_on(self, data, recipe=FOLDER, *arguments):
        stream = self.write("own.toml", recipe)
        return self.run("--data", data, *arguments, stream=stream)

    def learner(self, content):
        return self.run("-s", self.write("own.toml", LEARNER + content))

    def plugin(self, kind, **arguments):
        lines = [f"{key} = {value}" for key, value in arguments.items()]
        return self.learner("\n".join(["[[plugins]]", f"type = '{kind}'", *lines]))

    def predict(self, run, *arguments):
        # the run is shared with other tests: nothing may be written into it
        out = ("--out", self / "maps")
        return self.cli("predict", run, *out, *(arguments or [self.image("a.png")]))

    def interrupt(self):
        """A run that is interrupted after its first task."""
        save, calls = run_state.save_checkpoint, []

        def stop(path, state):
            save(path, state)
            calls.append(path)
            if len(calls) == 2:  # the first is a trial
                raise KeyboardInterrupt

        with self.monkeypatch.context() as patch:
            patch.setattr(run_state, "save_checkpoint", stop)
            return self.run()

    def copied_run(self):
        return Path(shutil.copytree(self.trained, self / "copy"))

    def of_other_images(self, run, digest="0"):
        """Let a run say that it was made with other images of a category."""
        content = json.loads((run / "results.json").read_text())
        content["data"]["bolt"] = digest
        (run / "results.json").write_text(json.dumps(content))
        return run


@dataclass(frozen=True)
class Wrong:
    """A wrong input.

    :param group: heading in the page.
    :param what: what is wrong, for the page.
    :param do: makes the mistake and returns the command's outcome.
    :param words: what the message must say.
    :param code: exit code.
    :param start: how the message's line starts.
    """

    group: str
    what: str
    do: Callable = field(repr=False)
    words: tuple[str, ...]
    code: int = 2
    start: str = "error: "


WRONG: list[Wrong] = []


def wrong(group, what, *words, **options):
    """Add a mistake to the list."""

    def add(do):
        WRONG.append(Wrong(group, what, do, words, **options))
        return do

    return add


DATA, RECIPES, ARGUMENTS, DISK = "Data", "Recipes", "Arguments", "Files and folders"

# Data


@wrong(DATA, "no `--data` for a data set on disk", "needs --data DIR")
def _(place):
    return place.run(stream=place.write("own.toml", FOLDER))


@wrong(DATA, "`check --data` without `-b`", "cannot be checked", "with -b")
def _(place):
    return place.cli("check", "--data", place.data())


@wrong(DATA, "the data set's folder does not exist", "folder not found", "train/good")
def _(place):
    return place.run_on(place / "set")


@wrong(DATA, "a file (an archive, say) where the folder should be", "unpack it first")
def _(place):
    return place.run_on(place.write("set.tar"))


@wrong(DATA, "an empty folder", "no category found", "train/good")
def _(place):
    (place / "set").mkdir()
    return place.run_on(place / "set")


@wrong(DATA, "the folder of one category", "one category", "the folder above")
def _(place):
    return place.run_on(place.data() / "bolt")


@wrong(DATA, "an empty category", "bolt/train/good", "no training image")
def _(place):
    data = place.data()
    for path in data.glob("bolt/train/good/*"):
        path.unlink()
    return place.run_on(data)


@wrong(
    DATA,
    "a category without test images",
    "no test image of 'gear'",
    "training and predict only",
    code=0,
    start="note: ",
)
def _(place):
    data = place.data()
    shutil.rmtree(data / "gear/test")
    shutil.rmtree(data / "gear/ground_truth")
    return place.run_on(data, FAST, "-s", "feature_gmm")


@wrong(
    DATA,
    "an anomalous image without mask",
    "'gear' has a mask",
    "pixel metrics are null",
    code=0,
    start="note: ",
)
def _(place):
    data = place.data()
    (data / "gear/ground_truth/hole/0_mask.png").unlink()
    return place.run_on(data, FAST, "-s", "feature_gmm")


@wrong(DATA, "a mask of another size than its image", "20x20", "expected 80x80")
def _(place):
    data = place.data()
    place.mask("set/gear/ground_truth/hole/0_mask.png", size=20)
    return place.cli("check", "-b", place.write("own.toml", FOLDER), "--data", data)


@wrong(DATA, "a truncated image", "train/good/0.png", "truncated")
def _(place):
    path = place.data() / "bolt/train/good/0.png"
    path.write_bytes(path.read_bytes()[:2000])
    return place.run_on(place / "set")


@wrong(DATA, "a truncated image, found by `check`", "good/0.png", "truncated")
def _(place):
    path = place.data() / "bolt/train/good/0.png"
    path.write_bytes(path.read_bytes()[:2000])
    return place.cli(
        "check", "-b", place.write("own.toml", FOLDER), "--data", place / "set"
    )


@wrong(DATA, "a file that is no image", "test/good/0.png", "not an image")
def _(place):
    place.data()
    place.write("set/gear/test/good/0.png", "text")
    return place.run_on(place / "set")


@wrong(DATA, "two images of one name", "same name as", "rename")
def _(place):
    place.data()
    place.image("set/bolt/train/good/0.jpg")
    return place.run_on(place / "set")


@wrong(DATA, "a link to an image that is not there", "good/2.png", "link to a file")
def _(place):
    (place.data() / "bolt/train/good/2.png").symlink_to(place / "elsewhere.png")
    return place.run_on(place / "set")


@wrong(
    DATA,
    "training images in a folder too deep",
    "no training image",
    "2 images in folders inside it",
)
def _(place):
    good = place.data() / "gear/train/good"
    good.rename(place / "set1")
    good.mkdir()
    (place / "set1").rename(good / "set1")
    return place.run_on(place / "set")


FAST = FOLDER + '[features]\nbackbone = "filterbank"\n'


@wrong(
    DATA,
    "images in folders that are not read",
    "2 files below",
    "are ignored: 1 image in",
    "avalanche-ad check",
    code=0,
    start="note: ",
)
def _(place):
    for category in ("bolt", "gear"):
        place.image(f"set/{category}/train/good/night/0.png")
    return place.run_on(place.data(), FAST, "-s", "feature_gmm")


@wrong(
    DATA,
    "colour of 12 bits in files of 16",
    "16-bit colour of which 12 bits are used",
    "rescale to the full range",
    code=0,
    start="note: ",
)
def _(place):
    data = place.data()
    for path in data.glob("*/t*/*/*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image).astype(np.uint16) * 16
        path.write_bytes(place.png16(pixels))
    return place.run_on(data, FAST, "-s", "feature_gmm")


@wrong(DATA, "inverted masks", "covering up to", "inverted?", code=0, start="note: ")
def _(place):
    data = place.data()
    for path in data.glob("*/ground_truth/*/*.png"):
        with Image.open(path) as image:
            ImageOps.invert(image).save(path)
    return place.run_on(data, FAST, "-s", "feature_gmm")


@wrong(
    DATA,
    "masks in a lossy format",
    "2 masks",
    "from half of their brightest value on",
    code=0,
    start="note: ",
)
def _(place):
    data = place.data()
    for path in data.glob("*/ground_truth/*/*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), quality=50)
        path.unlink()
    return place.run_on(data, FAST, "-s", "feature_gmm")


@wrong(
    DATA,
    "a mask drawn on the image turned by its EXIF orientation",
    "1 mask",
    "turned back",
    code=0,
    start="note: 1 mask",
)
def _(place):
    data, exif = place.data(), Image.Exif()
    exif[0x0112] = 6
    path = place.image("set/bolt/test/hole/0.png", size=(80, 100))
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)
    mask = np.zeros((100, 80), dtype=np.uint8)
    mask[8:20, 8:40] = 255
    Image.fromarray(mask).save(data / "bolt/ground_truth/hole/0_mask.png")
    return place.run_on(data, FAST, "-s", "feature_gmm")


@wrong(DATA, "a data set that lacks a category", "'cable'", "not found")
def _(place):
    for category in MVTEC_AD_CATEGORIES:
        if category != "cable":
            place.image(f"set/{category}/train/good/000.png")
            place.image(f"set/{category}/test/good/000.png")
    recipe = FOLDER.replace('"folder"', '"mvtec_ad"')
    return place.run_on(place / "set", recipe)


@wrong(DATA, "VisA without its split", "1cls.csv", "cannot be read")
def _(place):
    (place / "set/candle").mkdir(parents=True)
    return place.run_on(place / "set", FOLDER.replace('"folder"', '"visa"'))


@wrong(DATA, "a row in VisA's split that names no file", "candle/0.JPG", "not found")
def _(place):
    path = place.write("set/split_csv/1cls.csv")
    place.image("set/candle/1.JPG")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("object", "split", "label", "image", "mask"))
        writer.writerow(("candle", "train", "normal", "candle/1.JPG", ""))
        writer.writerow(("candle", "test", "normal", "candle/0.JPG", ""))
    recipe = FOLDER.replace('"folder"', '"visa"') + 'categories = ["candle"]\n'
    return place.run_on(place / "set", recipe)


@wrong(DATA, "a category in two data folders", "'bolt'", "is in", "too")
def _(place):
    shutil.copytree(place.data() / "bolt", place / "other/bolt")
    return place.run_on(place / "set", FOLDER, "--data", place / "other")


@wrong(DATA, "a category in none of several folders", "'nut'", "set holds bolt")
def _(place):
    place.data().joinpath("gear").rename(place / "gear")
    shutil.copytree(place / "gear", place / "other/gear")
    recipe = FOLDER + 'class_order = ["gear", "nut"]\n'
    return place.run_on(place / "other", recipe, "--data", place / "set")


@wrong(DATA, "one data folder given twice", "set", "twice")
def _(place):
    return place.run_on(place.data(), FOLDER, "--data", place / "set")


@wrong(DATA, "folders of a category by names it has not", "<category>/ok", "found")
def _(place):
    options = '[dataset_options]\nnormal_dir = "ok"\nabnormal_dir = "ng"\n'
    return place.run_on(place.data(), FOLDER + options)


@wrong(DATA, "a mistake in a table of images", "line 2, column image", "no file")
def _(place):
    table = "category,split,label,image\ngear,train,ok,0.png\n"
    place.write("set/images.csv", table)
    return place.run_on(place / "set", FOLDER.replace('"folder"', '"csv"'))


@wrong(DATA, "an unknown category in the class order", "'bolts'", "did you mean 'bolt'")
def _(place):
    return place.run_on(place.data(), FOLDER + 'class_order = ["gear", "bolts"]\n')


@wrong(DATA, "a category twice in the class order", "'gear'", "2 times")
def _(place):
    return place.run_on(place.data(), FOLDER + 'class_order = ["gear", "gear"]\n')


@wrong(DATA, "sizes of experiences that do not add up", "4 categories", "sum 3")
def _(place):
    return place.run("--set", "classes_per_experience=[2, 1]")


@wrong(DATA, "two ways at once to split the categories", "exactly one of")
def _(place):
    both = ("--set", "n_experiences=2", "--set", "classes_per_experience=2")
    return place.run(*both)


@wrong(DATA, "an unknown category of the procedural data set", "'nut'", "hex_nut")
def _(place):
    return place.cli("synthesize", place / "set", "--categories", "bolt,nut")


@wrong(DATA, "images too small to draw", "size = 8", "at least 32")
def _(place):
    return place.cli("synthesize", place / "set", "--size", 8)


@wrong(DATA, "images too small for the backbone", "32 x 32 pixels", "too small")
def _(place):
    backbone = ("--set", "features.backbone=filterbank")
    return place.run("--set", "image_size=32", *backbone)


# Recipes


@wrong(RECIPES, "an unknown stream", "'synthetic_5x2'", "did you mean 'synthetic_5x3'")
def _(place):
    return place.run(stream="synthetic_5x2")


@wrong(RECIPES, "an unknown strategy", "'replya'", "did you mean 'replay'")
def _(place):
    return place.run("-s", "replya")


@wrong(RECIPES, "a recipe that does not exist", "own.toml", "cannot read the recipe")
def _(place):
    return place.run("-s", place / "own.toml")


@wrong(RECIPES, "a file that is not TOML", "own.toml", "not valid TOML", "line 1")
def _(place):
    return place.run("-s", place.write("own.toml", "strategy: naive\n"))


@wrong(RECIPES, "a file that is not text", "own.toml", "not valid TOML")
def _(place):
    return place.run("-s", place.image("own.toml.png").rename(place / "own.toml"))


@wrong(RECIPES, "an unknown key", "'training.epoch'", "did you mean 'epochs'")
def _(place):
    return place.run_on(place.data(), FOLDER + "[training]\nepoch = 3\n")


@wrong(RECIPES, "`base` misspelt", "'bsae'", "did you mean 'base'")
def _(place):
    return place.run(
        stream=place.write("own.toml", 'title = "Own"\nbsae = "synthetic_2x2"\n')
    )


@wrong(RECIPES, "a value of a wrong type", "'image_size'", "integer", "'big'")
def _(place):
    return place.run_on(place.data(), FOLDER.replace("= 80", "= 'big'"))


@wrong(RECIPES, "a value out of range", "'training.lr'", "greater than 0", "-1")
def _(place):
    return place.run_on(place.data(), FOLDER + "[training]\nlr = -1\n")


@wrong(RECIPES, "a key that is missing", "'title'", "required")
def _(place):
    return place.run_on(place.data(), FOLDER.replace("title", "# title"))


@wrong(RECIPES, "an unknown data set", "'dataset'", "mvtec_ad", "'mnist'")
def _(place):
    return place.run_on(place.data(), FOLDER.replace('"folder"', '"mnist"'))


@wrong(RECIPES, "an unknown type of model", "'model'", "'cnn'", "flow_gmm")
def _(place):
    return place.run_on(place.data(), FOLDER + "[model]\ntype = 'cnn'\n")


@wrong(RECIPES, "a key of another model", "'model.components'", "couplings")
def _(place):
    return place.run("--set", "model.components=3")


@wrong(
    RECIPES,
    "categories to start beforehand where their data are",
    "categories_at_start",
    "'pattern' or 'orthogonal'",
)
def _(place):
    return place.run("-s", "der", "--set", "model.center_init=data")


@wrong(RECIPES, "categories to start beforehand for PackNet", "packnet", "leave one of")
def _(place):
    return place.run("-s", "packnet", "--set", "model.categories_at_start=true")


@wrong(RECIPES, "a blurry stream for PackNet", "blurry = 0.2", "set blurry = 0")
def _(place):
    return place.run("-s", "packnet", "--set", "blurry=0.2")


@wrong(
    RECIPES, "a blurry stream for a plugin that cannot", "blurry = 0.2", "blurry = 0"
)
def _(place):
    return place.run("-s", "center_freeze", "--set", "blurry=0.2")


@wrong(RECIPES, "neighbours for what draws single positions", "kernel = 3", "= 1, or")
def _(place):
    return place.run("-s", "statistics_rehearsal", "--set", "model.kernel=3")


@wrong(RECIPES, "synthetic images of a data set on disk", "[synthetic]", "'folder'")
def _(place):
    return place.run_on(place.data(), FOLDER + "[synthetic]\nseed = 1\n")


@wrong(RECIPES, "an unknown backbone", "'resnet'", "timm:")
def _(place):
    return place.run("--set", "features.backbone=resnet")


@wrong(RECIPES, "an unknown option of the backbone", "'depth'", "strides")
def _(place):
    return place.run("--set", "features.options.depth=3")


@wrong(RECIPES, "weights of another network", "not of the embedded", "weights.adopt")
def _(place):
    path = place / "resnet.safetensors"
    save_file({"conv1.weight": np.zeros((8, 3, 3, 3), np.float32)}, path)
    return place.run(
        *("--set", "features.backbone=embedded"),
        *("--set", f"features.options.weights={path}"),
    )


@wrong(RECIPES, "a plugin that does not exist", "no such class", "dotted path")
def _(place):
    return place.plugin("avalanche.training.plugins.ReplyPlugin")


@wrong(RECIPES, "a plugin of no such name", "mean 'CalibrationPlugin'", "dotted path")
def _(place):
    return place.plugin("CalibratonPlugin")


# Modules of other names each, for one process has one of a name.


@wrong(RECIPES, "a plugin of a module that does not exist", "no module", "beside")
def _(place):
    return place.plugin("nowhere_at_all.Keeps")


@wrong(RECIPES, "a plugin beside the recipe that is not there", "mean 'KeepsOne'")
def _(place):
    plugin = (
        "from avalanche.core import SupervisedPlugin\nclass {}(SupervisedPlugin): 0\n"
    )
    place.write("keeping.py", plugin.format("KeepsOne"))
    return place.plugin("keeping.KeepsOn")


@wrong(RECIPES, "a plugin whose module misses another", "'not_installed' (imported by")
def _(place):
    place.write("missing_one.py", "import not_installed\n")
    return place.plugin("missing_one.Keeps")


@wrong(RECIPES, "a plugin whose module is no Python", "SyntaxError", "line 1")
def _(place):
    place.write("unfinished.py", "class Keeps(\n")
    return place.plugin("unfinished.Keeps")


@wrong(RECIPES, "a plugin whose module fails", "KeyError: 'HOME_OF_X'", "line 2")
def _(place):
    place.write("failing.py", "import os\nos.environ['HOME_OF_X']\n")
    return place.plugin("failing.Keeps")


@wrong(RECIPES, "plugins of two modules of one name", "'twin'", "rename")
def _(place):
    plugin = (
        "from avalanche.core import SupervisedPlugin\nclass {}(SupervisedPlugin): 0\n"
    )
    for folder in "ab":
        place.write(f"{folder}/twin.py", plugin.format("Keeps"))
        content = LEARNER + "[[plugins]]\ntype = 'twin.Keeps'\n"
        place.write(f"{folder}/{folder}.toml", content)
    both = f"{place / 'a/a.toml'},{place / 'b/b.toml'}"
    return place.cli("compare", "-b", place.stream, "--strategies", both)


@wrong(RECIPES, "a class that is no plugin", "'os.PathLike'", "not a subclass")
def _(place):
    return place.plugin("os.PathLike")


@wrong(RECIPES, "an unknown argument of a plugin", "takes no 'size'", "mem_size")
def _(place):
    return place.plugin("avalanche.training.plugins.ReplayPlugin", size=3)


@wrong(RECIPES, "an argument of a plugin that is missing", "needs ewc_lambda")
def _(place):
    return place.plugin("avalanche.training.plugins.EWCPlugin")


@wrong(RECIPES, "a plugin's argument of a wrong value", "EWCPlugin cannot be built")
def _(place):
    kind = "avalanche.training.plugins.EWCPlugin"
    return place.plugin(kind, ewc_lambda=1.0, mode="'offline'")


@wrong(RECIPES, "text as a number of a plugin", "ewc_lambda", "number", "'abc'")
def _(place):
    return place.run("-s", "ewc", "--set", "plugins.0.ewc_lambda=abc")


@wrong(RECIPES, "a count of zero of Avalanche's plugin", "batch_size_mem", "equal to 1")
def _(place):
    return place.run("-s", "replay", "--set", "plugins.0.batch_size_mem=0")


@wrong(RECIPES, "a count of zero of this project's plugin", "components", "equal to 1")
def _(place):
    return place.run("-s", "gmm_alignment", "--set", "plugins.0.components=0")


@wrong(RECIPES, "an unknown choice of a plugin", "statistics", "'low_rank'", "'low'")
def _(place):
    return place.run("-s", "gmm_alignment", "--set", "plugins.0.statistics=low")


@wrong(RECIPES, "two values of an option that plugins share", "= 20 and", "= 3,")
def _(place):
    return place.run("-s", "gmm_alignment", "--set", "plugins.2.components=3")


@wrong(RECIPES, "a rank that has no effect", "rank = 32", "no effect", "'full'")
def _(place):
    return place.run("-s", "gmm_alignment", "--set", "plugins.0.statistics=full")


@wrong(RECIPES, "an option of another update", "steps = 9 has no effect", "'moments'")
def _(place):
    return place.run("-s", "gmm_alignment", "--set", "plugins.2.steps=9")


@wrong(RECIPES, "options of statistics without any", "keeps no statistics", "rank = 4")
def _(place):
    return place.run("-s", "alignment_sdc", "--set", "plugins.0.rank=4")


@wrong(RECIPES, "a negative size of a replay memory", "mem_size", "got -5")
def _(place):
    return place.run("-s", "replay", "--set", "plugins.0.mem_size=-5")


@wrong(RECIPES, "an option of a wrong type", "strategy MER", "beta", "number", "'x'")
def _(place):
    return place.run("-s", "mer", "--set", "options.beta=x")


@wrong(RECIPES, "an option that every strategy is given", "model is no option")
def _(place):
    return place.run("--set", "options.model=x")


@wrong(RECIPES, "a type of a plugin that is no text", "'plugins.0.type'", "string")
def _(place):
    return place.learner("[[plugins]]\ntype = 3\n")


@wrong(RECIPES, "a type of a storage policy that is no text", "dotted path", "got 3")
def _(place):
    kind = "avalanche.training.plugins.ReplayPlugin"
    return place.plugin(kind, storage_policy="{ type = 3 }")


@wrong(RECIPES, "a storage policy without a type", "'type' of a storage policy", "typ")
def _(place):
    kind = "avalanche.training.plugins.ReplayPlugin"
    return place.plugin(kind, storage_policy="{ typ = 'x', max_size = 3 }")


@wrong(
    RECIPES, "a plugin's value that is broken in Avalanche", "mode = 'mse'", "'cosine'"
)
def _(place):
    kind = "avalanche.training.plugins.FeatureDistillationPlugin"
    return place.plugin(kind, mode="'mse'")


@wrong(
    RECIPES,
    "a plugin's default that is broken in Avalanche",
    "reset_optimizer = True, its default",
    "set it to false",
)
def _(place):
    return place.plugin("avalanche.training.plugins.FromScratchTrainingPlugin")


@wrong(RECIPES, "a class that is no strategy", "'os.PathLike'", "not a subclass")
def _(place):
    return place.learner("strategy = 'os.PathLike'\n")


@wrong(RECIPES, "an unknown option of the strategy", "takes no 'momentum'")
def _(place):
    return place.learner("[options]\nmomentum = 0.9\n")


@wrong(RECIPES, "a model of another's that lacks what each has", "DensityModel lacks")
def _(place):
    return place.learner("[model]\ntype = 'avalanche_ad.models.DensityModel'\n")


@wrong(RECIPES, "a score that a model has not", "'model.score_kind'", "'product'")
def _(place):
    return place.run("--set", "model.score_kind=produkt")


@wrong(RECIPES, "an option that a data set has not", "'dataset_options'", "no option")
def _(place):
    return place.run("--set", "dataset_options.colour=red")


@wrong(RECIPES, "a metric that there is not", "'extra_metrics'", "'pixel_auroc'")
def _(place):
    return place.run("--set", 'extra_metrics=["pixel_aurok"]')


@wrong(RECIPES, "a number that is not finite", "'training.gradient_clip'", "finite")
def _(place):
    return place.run("--set", "training.gradient_clip=inf")


@wrong(RECIPES, "an empty class order", "'class_order'", "at least 1 item")
def _(place):
    return place.run("--set", "class_order=[]")


@wrong(
    RECIPES, "a plugin for another model", "fits a model that is not trained", "type ="
)
def _(place):
    return place.plugin("avalanche_ad.training.plugins.FitFeatureGMMPlugin")


@wrong(RECIPES, "a learning rate that breaks training", "the loss became", "lower")
def _(place):
    return place.run("--set", "training.lr=1e30", "--set", "training.warmup_epochs=0")


@wrong(RECIPES, "a learning rate that breaks the last step", "diverged", "lower the")
def _(place):
    # one step an experience: no loss is left to show it
    settings = ("training.lr=1e30", "training.warmup_epochs=0", "training.epochs=1")
    given = [part for one in settings for part in ("--set", one)]
    return place.run(*given, "--set", "training.batch_size=64")


# Arguments


@wrong(ARGUMENTS, "an unknown command", "'train'")
def _(place):
    return place.cli("train")


@wrong(ARGUMENTS, "an unknown option", "--epochs")
def _(place):
    return place.run("--epochs", 3)


@wrong(ARGUMENTS, "a seed that is no number", "--seed", "integer")
def _(place):
    return place.run("--seed", "zero")


@wrong(ARGUMENTS, "a negative seed", "--seed", "0")
def _(place):
    return place.run("--seed", -1)


@wrong(ARGUMENTS, "a device that there is not", "--device 'cuda:99'", "auto, cpu")
def _(place):
    return place.run("--device", "cuda:99")


@wrong(ARGUMENTS, "a device that does not exist", "--device 'gpu'", "auto, cpu")
def _(place):
    return place.run("--device", "gpu")


@wrong(ARGUMENTS, "a device that holds no data", "--device 'meta'", "auto, cpu")
def _(place):
    return place.run("--device", "meta")


@wrong(ARGUMENTS, "`--set` without a value", "'training.epochs'", "section.key=value")
def _(place):
    return place.run("--set", "training.epochs")


@wrong(ARGUMENTS, "`--set` with an unknown section", "'trainer'", "training")
def _(place):
    return place.run("--set", "trainer.epochs=3")


@wrong(ARGUMENTS, "`--set` with an unknown key", "'training.epoch'", "'epochs'")
def _(place):
    return place.run("--set", "training.epoch=3")


@wrong(ARGUMENTS, "`--set` with a wrong value", "'training.epochs'", "'many'")
def _(place):
    return place.run("--set", "training.epochs=many")


@wrong(ARGUMENTS, "`--set` for a plugin that there is not", "has no plugins")
def _(place):
    return place.run("--set", "plugins.0.mem_size=3")


@wrong(ARGUMENTS, "`compare --set` for a plugin that one has not", "strategy naive")
def _(place):
    command = ["compare", "-b", place.stream, "--strategies", "replay,naive"]
    return place.cli(*command, "--set", "plugins.0.mem_size=8")


@wrong(ARGUMENTS, "`compare --set` with a key that one has not", "over feature_gmm")
def _(place):
    command = ["compare", "-b", place.stream, "--strategies", "naive,feature_gmm"]
    return place.cli(*command, "--set", "model.couplings=2")


@wrong(ARGUMENTS, "`compare --set` with an argument that one has not", "error: lwf: pl")
def _(place):
    command = ["compare", "-b", place.stream, "--strategies", "replay,lwf"]
    return place.cli(*command, "--set", "plugins.0.mem_size=8")


@wrong(ARGUMENTS, "`--set` with a list without quotes", "not a TOML value", '"gear"]')
def _(place):
    return place.run("--set", "class_order=[bolt,gear]")


@wrong(ARGUMENTS, "`--set` with a name for a list", "'class_order'", "valid list")
def _(place):
    return place.run("--set", "class_order=bolt")


@wrong(ARGUMENTS, "`--set` with a base", "'base=mvtec_5x3'", "belongs in a file")
def _(place):
    return place.run("--set", "base=mvtec_5x3")


@wrong(ARGUMENTS, "`compare` without strategies", "--strategies")
def _(place):
    return place.cli("compare", "-b", place.stream)


@wrong(ARGUMENTS, "`compare` with an unknown strategy among others", "'ewk'", "'ewc'")
def _(place):
    return place.cli("compare", "-b", place.stream, "--strategies", "naive,ewk")


@wrong(ARGUMENTS, "`compare` with a strategy twice", "naive is given twice")
def _(place):
    return place.cli("compare", "-b", place.stream, "--strategies", "naive,naive")


@wrong(ARGUMENTS, "seeds that are no numbers", "--seeds '0;1'", "0,1,2")
def _(place):
    return place.cli("compare", "--strategies", "naive", "--seeds", "0;1")


@wrong(ARGUMENTS, "`--against` a strategy that is not compared", "'ewc'", "naive")
def _(place):
    command = ["compare", "-b", place.stream, "--strategies", "naive"]
    return place.cli(*command, "--against", "ewc")


@wrong(ARGUMENTS, "`--jobs 0`", "--jobs", "equal to 1")
def _(place):
    return place.cli("compare", "--strategies", "naive", "--jobs", 0)


@wrong(ARGUMENTS, "`--published` of an unknown benchmark", "'mvtec'", "mvtec_5x3")
def _(place):
    command = ["compare", "-b", place.stream, "--strategies", "naive"]
    return place.cli(*command, "--published", "mvtec")


@wrong(
    ARGUMENTS, "`--published` of a benchmark without any", "lists no published numbers"
)
def _(place):
    command = ["compare", "-b", place.stream, "--strategies", "naive"]
    return place.cli(*command, "--published", place.stream)


@wrong(ARGUMENTS, "`compare` with two files of one name", "'own'", "rename")
def _(place):
    files = [place.write(f"{name}/own.toml", LEARNER) for name in "ab"]
    strategies = ",".join(map(str, files))
    return place.cli("compare", "-b", place.stream, "--strategies", strategies)


@wrong(ARGUMENTS, "a list of something unknown", "'plugin'", "mean 'plugins'")
def _(place):
    return place.cli("list", "plugin")


@wrong(ARGUMENTS, "an unknown action on the cache", "'empty'", "list or clear")
def _(place):
    return place.cli("cache", "empty")


@wrong(ARGUMENTS, "an unknown key of the cache", "no entry abc")
def _(place):
    return place.cli("cache", "clear", "--key", "abc", "--cache", place / "cache")


@wrong(ARGUMENTS, "`predict` without a run", "RUN")
def _(place):
    return place.cli("predict")


@wrong(ARGUMENTS, "an unknown threshold", "'median'", "quantile")
def _(place):
    return place.predict(place.trained, place.image("a.png"), "--threshold", "median")


@wrong(
    ARGUMENTS,
    "a quantile of a run that an earlier version made",
    "keeps no scores of held-out normals",
    "--threshold quantile",
)
def _(place):
    run = place.copied_run()
    content = json.loads((run / "model.json").read_text())
    del content["held_out"]
    (run / "model.json").write_text(json.dumps(content))
    return place.predict(run, place.image("a.png"), "--threshold", "0.99")


# Files and folders


@wrong(DISK, "`--out` is a file", "is a file", "give a folder")
def _(place):
    return place.run("--out", place.write("run"))


@wrong(DISK, "`--out` holds something else", "holds no run", "another folder")
def _(place):
    place.write("run/thesis.tex")
    return place.run()


@wrong(DISK, "`--out` is the working folder", "give a new folder")
def _(place):
    (place / "here").mkdir()
    place.monkeypatch.chdir(place / "here")
    return place.run("--out", ".")


@wrong(DISK, "`--out` cannot be written", "cannot write there", "writable")
def _(place):
    return place.run("--out", place.write("file") / "run")


@wrong(DISK, "another process works on the run", "another process", "wait")
def _(place):
    place.write(f"run.partial/{WORKING_MARKER}")
    with FileLock(place / "run.partial/run.lock"):
        return place.run()


@wrong(DISK, "a folder of that name is somebody else's", "where this run would work")
def _(place):
    place.write("run.partial/thesis.tex")
    return place.run()


@wrong(DISK, "an interrupted run has other settings", "epochs 2 → 3", "--fresh")
def _(place):
    place.interrupt()
    return place.run("--set", "training.epochs=3")


@wrong(DISK, "an interrupted run is damaged", "cannot be resumed", "--fresh")
def _(place):
    place.interrupt()
    place.write("run.partial/checkpoint", "half of it")
    return place.run()


@wrong(
    DISK,
    "no checkpoint can be written (the run goes on)",
    "no checkpoint",
    code=0,
    start="warning: ",
)
def _(place):
    place.monkeypatch.setenv("XDG_STATE_HOME", str(place.write("file")))
    return place.run()


@wrong(DISK, "`--from` a folder that is no run", "no finished run")
def _(place):
    return place.run("--from", place / "nowhere")


@wrong(DISK, "`--from` a run of other settings", "epochs 2 → 3")
def _(place):
    new = ("--set", 'experiences=[["hex_nut"]]')
    return place.run("--from", place.trained, *new, "--set", "training.epochs=3")


@wrong(DISK, "`--from` a run of the same stream", "has learned all of this stream")
def _(place):
    return place.run("--from", place.trained)


@wrong(DISK, "`run` into a run of another recipe", "another recipe", "--out")
def _(place):
    out = ("--out", place.copied_run())
    return place.run(*out, "--set", "synthetic.seed=5")


@wrong(DISK, "`run` into a run of another seed", "seed 0, not 1", "--out")
def _(place):
    return place.run("--out", place.copied_run(), "--seed", 1)


@wrong(DISK, "`run` into a run of other images", "bolt changed", "--out")
def _(place):
    return place.run("--out", place.of_other_images(place.copied_run()))


@wrong(DISK, "`report` of a folder that is not there", "no such folder")
def _(place):
    return place.cli("report", place / "runs")


@wrong(DISK, "`report` of a folder without runs", "no finished run")
def _(place):
    (place / "runs").mkdir()
    return place.cli("report", place / "runs")


@wrong(DISK, "`report` of a folder of folders of runs", "no finished run", "give ")
def _(place):
    place.copied_run().rename((place / "runs").mkdir() or place / "runs/naive-seed0")
    return place.cli("report", place.folder)


@wrong(DISK, "`report` of runs on different streams", "different streams")
def _(place):
    (place / "runs").mkdir()
    for name in "ab":
        results = json.loads((place.copied_run() / "results.json").read_text())
        results["benchmark"] = name
        (place / "copy/results.json").write_text(json.dumps(results))
        (place / "copy").rename(place / "runs" / name)
    return place.cli("report", place / "runs")


@wrong(DISK, "`report` of runs of other images", "bolt changed (a | b)", "report on")
def _(place):
    (place / "runs").mkdir()
    for seed, name in enumerate("ab"):
        place.copied_run().rename(place / "runs" / name)
        place.of_other_images(place / "runs" / name, str(seed))
    return place.cli("report", place / "runs")


@wrong(DISK, "`report` of two runs of one strategy and seed", "both runs of naive")
def _(place):
    (place / "runs").mkdir()
    for name in "ab":
        place.copied_run().rename(place / "runs" / name)
    return place.cli("report", place / "runs")


@wrong(DISK, "`report` into a file that cannot be written", "cannot write", "--out")
def _(place):
    out = place.write("file") / "page.html"
    return place.cli("report", place.trained, "--out", out)


@wrong(DISK, "`compare` into runs of another recipe", "another recipe", "--out")
def _(place):
    shutil.copytree(place.trained, place / "all/naive-seed0")
    command = ["compare", "-b", place.stream, "--strategies", "naive"]
    return place.cli(*command, "--out", place / "all", "--set", "training.epochs=1")


@wrong(DISK, "`compare` into runs of other images", "bolt changed", "--out")
def _(place):
    (place / "all").mkdir()
    place.of_other_images(place.copied_run()).rename(place / "all/naive-seed0")
    command = ["compare", "-b", place.stream, "--strategies", "naive"]
    return place.cli(*command, "--out", place / "all", "--seeds", "0,1")


@wrong(DISK, "`compare` into runs of other features", "do not compare", "--out")
def _(place):
    file = place.copied_run() / "results.json"
    content = json.loads(file.read_text())
    content["versions"]["features"] = "0123456789ab"
    file.write_text(json.dumps(content))
    (place / "all").mkdir()
    file.parent.rename(place / "all/naive-seed0")
    command = ["compare", "-b", place.stream, "--strategies", "naive"]
    return place.cli(*command, "--out", place / "all", "--seeds", "0,1")


@wrong(DISK, "`compare` meets damaged results", "results.json", "remove the folder")
def _(place):
    place.write("all/naive-seed0/results.json", "{")
    command = ["compare", "-b", place.stream, "--strategies", "naive"]
    return place.cli(*command, "--out", place / "all")


@wrong(ARGUMENTS, "an unknown experiment", "'expand'", "did you mean 'expansion'")
def _(place):
    return place.cli("experiment", "expand", "-b", place.stream)


@wrong(
    ARGUMENTS,
    "an experiment on a model without a flow",
    "feature_gmm has no flow",
    "[model] type",
)
def _(place):
    learner = ("-b", place.stream, "-s", "feature_gmm")
    return place.cli("experiment", "drift", *learner, "--out", place / "out")


@wrong(ARGUMENTS, "an experiment on a stream of one task", "one task", "two or more")
def _(place):
    every = "classes_per_experience=4"
    learner = ("-b", place.stream, "--set", every, "--out", place / "out")
    return place.cli("experiment", "ladder", *learner)


@wrong(DISK, "an experiment meets damaged measurements", "damaged", "remove it")
def _(place):
    place.write("out/drift-seed0.json", "{")
    where = ("-b", place.stream, "--out", place / "out")
    return place.cli("experiment", "drift", *where)


@wrong(DISK, "an experiment cannot write its files", "cannot write there", "writable")
def _(place):
    where = ("-b", place.stream, "--out", place.write("file") / "out")
    return place.cli("experiment", "parameter_change", *where)


@wrong(DISK, "the feature cache cannot be written", "cannot be written", "--cache")
def _(place):
    return place.run("--cache", place.write("file") / "cache")


@wrong(
    DISK,
    "the feature cache is damaged (the run goes on)",
    "are damaged",
    "computing them again",
    code=0,
    start="warning: ",
)
def _(place):
    cache = ("-s", "feature_gmm", "--cache", place / "cache")
    assert place.run(*cache).code == 0
    next((place / "cache").glob("*/manifest.json")).write_text("{")
    return place.run(*cache, "--fresh")


@wrong(
    DISK,
    "a run is interrupted (the same command resumes it)",
    "the same command resumes",
    code=130,
    start="interrupted; ",
)
def _(place):
    return place.interrupt()


@wrong(DISK, "a data set is to be written where something is", "new or empty folder")
def _(place):
    place.write("set/thesis.tex")
    return place.cli("synthesize", place / "set")


@wrong(DISK, "a data set is to be written below a file", "cannot write", "writable")
def _(place):
    folder = place.write("file") / "set"
    return place.cli("synthesize", folder, "--categories", "bolt", "--size", 32)


@wrong(DISK, "`calibrate` with no image that can be read", "none of 1 image can be")
def _(place):
    place.write("normals/a.png", "no image")
    return place.cli("calibrate", place.copied_run(), place / "normals")


@wrong(DISK, "`predict` on a folder that is no run", "no trained model", "finished run")
def _(place):
    return place.predict(place / "nowhere")


@wrong(DISK, "`predict` on an image that does not exist", "no such image or folder")
def _(place):
    return place.predict(place.trained, place / "image.png")


@wrong(DISK, "`predict` on a folder without images", "no image in this folder")
def _(place):
    (place / "images").mkdir()
    return place.predict(place.trained, place / "images")


@wrong(
    DISK,
    "`predict` on a file that is no image; others are scored",
    "notes.txt",
    "not an image",
    code=1,
    start='{"image":',
)
def _(place):
    return place.predict(place.trained, place.write("notes.txt", "text"))


@wrong(DISK, "`predict` on heat maps alone", "no image but heat maps", "give images")
def _(place):
    assert place.predict(place.trained).code == 0
    return place.predict(place.trained, place / "maps")


@wrong(DISK, "`predict` with damaged weights", "damaged", "run the experiment again")
def _(place):
    run = place.copied_run()
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    return place.predict(run)


@wrong(DISK, "`predict` with a damaged description", "damaged", "run the experiment")
def _(place):
    run = place.copied_run()
    (run / "model.json").write_text("{")
    return place.predict(run)


@wrong(DISK, "`predict` with a run of another version", "schema 1", "found 2")
def _(place):
    run = place.copied_run()
    content = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**content, "schema": 2}))
    return place.predict(run)


@wrong(DISK, "heat maps cannot be written", "cannot write heat maps", "--out")
def _(place):
    image = place.image("image.png")
    maps = place.write("file") / "maps"
    return place.predict(place.trained, image, "--out", maps)


@pytest.fixture
def place(tmp_path, cli, process, tiny_stream, trained_run, monkeypatch, png16):
    monkeypatch.chdir(tmp_path)
    run = trained_run.folder
    return Place(tmp_path, cli, process, tiny_stream, run, monkeypatch, png16)


def message(outcome, start):
    """Return the one line of an outcome that tells of the mistake."""
    told = (outcome.out + outcome.err).splitlines()
    (line,) = [line for line in told if line.startswith(start)]
    return line


def readable(line, place):
    """Return a message without the places of this machine."""
    for path, name in (
        (place.trained, "RUN"),
        (place.stream.parent, "DIR"),
        (place.folder, "DIR"),
        (ROOT, "CHECKOUT"),
    ):
        line = line.replace(str(path), name)
    line = re.sub(r"\b[0-9a-f]{32}\b", "KEY", line)
    return line.replace("|", "\\|").replace("<", "&lt;")


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.what)
def test_a_wrong_input_is_told_in_one_line(case, place, written_rows):
    outcome = case.do(place)
    assert outcome.code == case.code, outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    line = message(outcome, case.start)
    for word in case.words:
        assert word in line
    if case.code == 2:
        # besides it at most what is being run, or how many problems were found
        assert len(outcome.err.splitlines()) <= 2
    row = f"| {case.what} | {case.code} | {readable(line, place)} |"
    if written_rows is not None:
        written_rows[case.what] = row
        return
    rows = [r for r in PAGE.read_text().splitlines() if f"| {case.what} |" in r]
    assert len(rows) == 1, f"write {PAGE.name} again with --write-docs"
    for word in case.words:
        assert word in rows[0].replace("\\|", "|").replace("&lt;", "<")


def test_the_page_lists_these_and_no_others(written_rows):
    if written_rows is not None:
        lines = [
            "# Wrong inputs and what they are told",
            "",
            "Every message is one line on standard error (`check` lists its findings",
            "on standard output, and `predict` images that it cannot read); `--debug`",
            "shows the traceback. `DIR` and `RUN` stand for folders. Written by",
            "`python -m pytest tests/test_wrong_inputs.py --write-docs`; the same file",
            "tests that each is told so.",
        ]
        for group in dict.fromkeys(case.group for case in WRONG):
            head = ["| what is wrong | exit code | message |", "| --- | ---: | --- |"]
            lines += ["", f"## {group}", "", *head]
            lines += [written_rows[case.what] for case in WRONG if case.group == group]
        PAGE.write_text("\n".join(lines) + "\n")
    page = PAGE.read_text()
    assert page.count("\n| ") - page.count("\n| ---") - 4 == len(WRONG)
    assert len({case.what for case in WRONG}) == len(WRONG) >= 25


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--nope"],
        ["check", "--benchmark", "mvtec_5x3", "--data", "nowhere"],
    ],
    ids=" ".join,
)
def test_a_real_process_tells_it_too(process, tmp_path, monkeypatch, arguments):
    """A mistake that is seen before a command begins, and one that a command tells."""
    monkeypatch.chdir(tmp_path)
    outcome = process(*arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert message(outcome, "error: ")
