"""What the API answers, as JSON with a schema: the classes' names are those of the published description."""

from pydantic import BaseModel, ConfigDict, Field


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProblemAnswer(_Document):
    """Why a request was refused."""

    detail: str = Field(description="A sentence: what was given, what was expected, what to do.")


class ClassAnswer(_Document):
    """A class of the model."""

    index: int = Field(
        serialization_alias="class", description="Its number; of a binary model 1: it is so, 0: it is not."
    )
    label: str = Field(description="Its name.")
    probability: float | None = Field(
        description="Softmax, or of a binary or multilabel model its own sigmoid; null if it is NaN."
    )


class PhotoAnswer(_Document):
    """The photo as it was sent."""

    sha256: str = Field(description="Of the bytes.")
    width: int = Field(description="In pixels, after the rotation that its EXIF data asks for.")
    height: int = Field(description="Likewise.")
    notes: list[str] = Field(default=[], description="What was assumed to open it.")


class SeenAnswer(_Document):
    """The photo as the model sees it: after resizing and cropping."""

    width: int = Field(description="In pixels; every heatmap has this size.")
    height: int = Field(description="Likewise.")
    png: str = Field(description="The picture, a PNG in base64.")


class Predicted(_Document):
    """The most probable classes of a photo."""

    model: str = Field(description="The model's name.")
    photo: PhotoAnswer
    seen: SeenAnswer
    task: str = Field(
        description="multiclass: one of the classes, whose probabilities sum to 1; binary: class 1 or class "
        "0; multilabel: any of them."
    )
    predictions: list[ClassAnswer] = Field(description="The most probable class first.")


class ColourScale(_Document):
    """How relevance became colour."""

    limit: float = Field(description="Relevance of this magnitude and more has the full colour.")
    peak: float = Field(description="The largest magnitude that is drawn, in percent of which legends are.")
    smoothed: bool = Field(description="Whether these are of the smoothed map, because that is drawn.")
    basis: str = Field(description="How the limit was chosen.")
    warning: str = Field(
        description="What is odd about the map (no relevance, not finite), or an empty string."
    )
    hues: tuple[str, str] = Field(
        description="The names of the colours of what speaks for the class and of what speaks against it; of "
        "`versus` of the two classes."
    )
    bar: str = Field(
        description="The colours from -peak to +peak, from left to right, a PNG in base64; of `versus` from "
        "the second class over both to the first; of `region` an empty string."
    )


class PictureAnswer(_Document):
    """A map in a style, as the page shows it."""

    title: str = Field(description="What stands over it, or an empty string.")
    png: str = Field(description="A PNG in base64.")


class Map(_Document):
    """One heatmap: one class by one method."""

    method: str = Field(description="The method's name.")
    definition: str = Field(description="Seed, selection and rules in full, or a baseline's settings.")
    composite: str = Field(description="The name of its rules; empty for a baseline.")
    target: ClassAnswer
    against: list[ClassAnswer] | str = Field(
        description="The classes it is contrasted with, or what there is in their place, in words."
    )
    selection_skipped: int = Field(description="At how many layers no gradient was positive.")
    remark: str = Field(
        description="What a reader of the map must know, for example that its signs have turned, or an empty "
        "string."
    )
    ledger: dict[str, float | None] = Field(
        description="Where the relevance went: seed = pixels + selection + bias + epsilon; empty for a "
        "baseline."
    )
    scale: ColourScale
    heatmap: str = Field(
        description="Relevance per pixel, float32 (height, width), as the base64 of an .npy file."
    )
    pictures: list[PictureAnswer] = Field(
        description="The map in the style that was asked for. Of `overlay` it is the heatmap in colour, the "
        "weaker the more transparent, to lay over the photo; of `signs` there are two, what speaks for the "
        "class and what speaks against it; of `versus` there is one for the two classes, and both maps "
        "have it."
    )
    note: str = Field(description="How to read the style: a sentence, or an empty string.")
    python: str = Field(description="The lines of Python that make this map.")


class Explained(_Document):
    """Heatmaps of a photo."""

    clarp: str = Field(description="The version of clarp.")
    model: str = Field(description="The model's name.")
    weights_sha256: str = Field(description="Over the model's parameters and buffers.")
    photo: PhotoAnswer
    style: str = Field(description="How the maps are drawn.")
    colours: str = Field(description="In which colours.")
    smoothing: float = Field(
        description="Sigma of the Gaussian over the maps that are drawn, as a share of the longer side."
    )
    maps: list[Map] = Field(description="For each method in the order asked for, each target.")


class Change(_Document):
    """What masking does to one class."""

    index: int = Field(serialization_alias="class", description="Its number.")
    label: str = Field(description="Its name.")
    before: float | None = Field(description="Its probability in the whole photo.")
    after: float | None = Field(description="Its probability with the regions covered.")


class Masked(_Document):
    """What covering regions of a photo does to the probabilities."""

    model: str = Field(description="The model's name.")
    photo: PhotoAnswer
    fill: str = Field(description="What the covered pixels show.")
    covered: float = Field(description="The share of the pixels that are covered.")
    classes: list[Change] = Field(
        description="The classes asked for, then the most probable ones before and after."
    )


class MethodRow(_Document):
    """A method that can be asked for."""

    name: str
    when: str = Field(description="For which questions to take it.")
    has_rivals: bool = Field(description="Whether it contrasts the target with other classes.")
    definition: str = Field(description="Seed, selection and rules in full, or a baseline's settings.")


class ModelRow(_Document):
    """A model that is served."""

    name: str
    classes: int = Field(description="How many it knows.")
    task: str | None = Field(
        description="As in a prediction; null where it is known with the first photo only."
    )
    notes: list[str] = Field(description="What was assumed about it.")


class ColoursRow(_Document):
    """Colours in which maps can be drawn."""

    name: str
    speaks_for: str = Field(description="The colour of what speaks for the class.")
    speaks_against: str = Field(description="And of what speaks against it.")


class LimitRow(_Document):
    """What one request may ask for."""

    photo_bytes: int
    pixels: int
    aspect: int = Field(description="The longer side may be so many times the shorter one.")
    targets: int
    against: int
    maps: int = Field(description="Targets times methods.")
    side: int = Field(description="Pixels of a picture's longer side.")
    drawn: int = Field(description="Maps times the square of that.")
    regions: int
    seconds: float


class About(_Document):
    """What this server offers."""

    clarp: str = Field(description="The version of clarp.")
    models: list[ModelRow] = Field(description="The first is meant where a request names none.")
    methods: list[MethodRow]
    baselines: list[MethodRow] = Field(
        description="What is no method of clarp's and can be asked for beside them, where the model allows "
        "it."
    )
    styles: list[str] = Field(description="How maps can be drawn.")
    colours: list[ColoursRow] = Field(description="In which colours; the first are the usual ones.")
    limits: LimitRow


class Name(_Document):
    """A class and what it is called."""

    index: int = Field(serialization_alias="class", description="Its number.")
    label: str = Field(description="Its name.")


class Named(_Document):
    """Which class a name means."""

    model: str
    meant: int | None = Field(
        description="The class's number; null if the name is that of none, or of several."
    )
    near: list[Name] = Field(
        description="Where it is null: the classes of this name, or those with the nearest names."
    )
    problem: str = Field(description="Likewise: why, in a sentence; else an empty string.")


class LabelsAnswer(_Document):
    """The names of a model's classes."""

    model: str
    labels: list[str] = Field(description="In the order of the logits.")
