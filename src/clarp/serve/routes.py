"""The HTTP API. The photo is the body of each request; everything else is in the query."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from pydantic import AfterValidator, Field, StringConstraints

from clarp import __version__
from clarp.manifest import TOP
from clarp.method import BASELINES, Method, methods
from clarp.render import PALETTES, STYLES, Look, Style
from clarp.render.look import SIZES, WIDEST
from clarp.render.palette import PaletteName
from clarp.serve import answers
from clarp.serve.drawing import SIDE
from clarp.serve.engine import COMPARED, OFFERED, Engine, Question, Rectangle
from clarp.serve.limits import Limits
from clarp.serve.service import Service

_MOST = Limits()
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Method = Annotated[
    str,
    AfterValidator(lambda name: name if name in COMPARED else Method.named(name).name),
    Field(json_schema_extra={"enum": list(OFFERED)}),
]
_Region = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5},[0-9]{1,5},[0-9]{1,5},[0-9]{1,5}$")]
_Model = Annotated[
    str | None, Query(max_length=200, description="A name from /api/about; the first one there if left out.")
]
_Targets = Annotated[
    tuple[_Name, ...],
    Query(
        alias="target",
        max_length=_MOST.targets,
        description="A class to explain, by name or number; the most probable one if left out. The style "
        "`versus` takes two.",
    ),
]
_OneOrTwo = Annotated[
    tuple[_Name, ...],
    Query(
        alias="target",
        max_length=2,
        description="The class to explain, by name or number; the most probable one if left out. The style "
        "`versus` takes two, others one.",
    ),
]
_Against = Annotated[
    tuple[_Name, ...],
    Query(
        max_length=_MOST.against,
        description="A class to contrast it with. If left out: all others, or of a multilabel model none. "
        "Methods without rivals take no notice.",
    ),
]
_Methods = Annotated[
    tuple[_Method, ...], Query(alias="method", max_length=len(OFFERED), description="How to explain.")
]
_Regions = Annotated[
    tuple[_Region, ...],
    Query(
        alias="region",
        min_length=1,
        max_length=_MOST.regions,
        description="A rectangle to cover: top,left,bottom,right in the model's pixels, the last two "
        "outside.",
    ),
]

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.ProblemAnswer, "description": what}
    for status, what in {
        400: "Not meant for this server, or broken.",
        401: "The token is missing or wrong.",
        403: "From a page of another site.",
        404: "No such model.",
        422: "An argument or the photo is not as it should be.",
    }.items()
}
_WITH_PHOTO: dict[int | str, dict[str, Any]] = _PROBLEMS | {
    status: {"model": answers.ProblemAnswer, "description": what}
    for status, what in {
        408: "The photo took too long to arrive.",
        413: "The photo has too many bytes or pixels.",
        415: "A form was sent, not a photo.",
        503: "Busy; Retry-After says when to try again.",
        504: "No answer in time.",
    }.items()
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "The photo's file as it is: JPEG, PNG, GIF, WebP, BMP or TIFF.",
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("application/octet-stream", "image/jpeg", "image/png")
        },
    }
}
router = APIRouter(prefix="/api")


def _service(request: Request) -> Service:
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


def _engine(request: Request, model: _Model = None) -> Engine:
    return _service(request).engine(model)


_Served = Annotated[Engine, Depends(_engine)]


def _look(
    *,
    style: Annotated[
        Style, Query(description="How maps are drawn, as `--style` of the command line.")
    ] = "overlay",
    colours: Annotated[PaletteName, Query(description="In which colours.")] = "vik",
    smoothing: Annotated[
        float | None,
        Query(
            ge=0,
            le=WIDEST,
            allow_inf_nan=False,
            description="Sigma of the Gaussian over the map that is drawn, as a share of its longer side; "
            "0: none. If left out: the style's own.",
        ),
    ] = None,
    opacity: Annotated[
        float,
        Query(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="How much of the photo the strongest relevance hides.",
        ),
    ] = 1.0,
    size: Annotated[
        int | None,
        Query(
            ge=SIZES[0],
            le=_MOST.side,
            description="Pixels of the longer side of the photo under a map. If left out: of `picture` the "
            f"photo's own, at least 448 and at most 1024; of `explain` {SIDE}.",
        ),
    ] = None,
    caption: Annotated[
        bool,
        Query(
            description="Of `picture`: whether photo, colour bar and words stand with the map; else it is "
            "the map alone."
        ),
    ] = True,
) -> Look:
    """How maps are drawn, as the options of the command line of these names."""
    return Look(style, colours, smoothing, opacity, size, caption)


_Look = Annotated[Look, Depends(_look)]


@router.get("/about", responses=_PROBLEMS)
async def about(request: Request) -> answers.About:
    """What this server offers: models, methods, limits."""
    service = _service(request)
    named = [Method.named(name) for name in methods()]
    return answers.About(
        clarp=__version__,
        models=[
            answers.ModelRow(
                name=name,
                classes=len(engine.classifier.labels),
                task=engine.task.name if engine.task else None,
                notes=list(engine.notes),
            )
            for name, engine in service.engines.items()
        ],
        methods=[
            answers.MethodRow(
                name=method.name, when=method.when, has_rivals=method.has_rivals, definition=repr(method)
            )
            for method in named
        ],
        baselines=[
            answers.MethodRow(name=name, when=when, has_rivals=False, definition=BASELINES[name])
            for name, when in COMPARED.items()
        ],
        styles=list(STYLES),
        colours=[
            answers.ColoursRow(name=name, speaks_for=one, speaks_against=other)
            for name, (one, other) in PALETTES.items()
        ],
        limits=answers.LimitRow.model_validate(service.limits, from_attributes=True),
    )


@router.get("/classes", responses=_PROBLEMS)
async def classes(engine: _Served) -> answers.LabelsAnswer:
    """The names of a model's classes."""
    return answers.LabelsAnswer(model=engine.name, labels=list(engine.classifier.labels))


@router.get("/class", responses=_PROBLEMS)
def class_(
    engine: _Served, name: Annotated[_Name, Query(description="As a request would name the class.")]
) -> answers.Named:
    """Which class a name means; if none, the nearest names."""
    return engine.named(name)


@router.post("/predict", responses=_WITH_PHOTO, openapi_extra=_BODY)
async def predict(
    request: Request, engine: _Served, top: Annotated[int, Query(ge=1, le=100)] = TOP
) -> answers.Predicted:
    """The most probable classes of a photo, and the photo as the model sees it."""
    return await _service(request).answer(request, engine, lambda photo, _: engine.predict(photo, top))


@router.post("/explain", responses=_WITH_PHOTO, openapi_extra=_BODY)
async def explain(
    request: Request,
    engine: _Served,
    *,
    targets: _Targets = (),
    against: _Against = (),
    chosen: _Methods = ("ssglrp",),
    same_scale: Annotated[
        bool, Query(description="One colour scale over all maps of a method; else each map has its own.")
    ] = False,
    look: _Look,
) -> answers.Explained:
    """Heatmaps of a photo: for each method each target."""
    maps, limits = max(1, len(targets)) * len(chosen), _service(request).limits
    if maps > limits.maps:
        raise HTTPException(
            422, f"{maps} maps were asked for (targets times methods), expected at most {limits.maps}."
        )
    side = look.size or SIDE
    if maps * side**2 > limits.drawn:
        raise HTTPException(
            422,
            f"{maps} maps of {side} x {side} pixels were asked for, expected at most {limits.drawn:,} "
            "pixels in all; ask for fewer maps, or for a smaller size.",
        )
    question = Question(targets, against, tuple(dict.fromkeys(chosen)), same_scale, look)
    return await _service(request).answer(
        request, engine, lambda photo, given_up: engine.explain(photo, question, given_up)
    )


@router.post(
    "/picture",
    responses=_WITH_PHOTO | {200: {"description": "A PNG.", "content": {"image/png": {}}}},
    openapi_extra=_BODY,
    response_class=Response,
)
async def picture(
    request: Request,
    engine: _Served,
    *,
    targets: _OneOrTwo = (),
    against: _Against = (),
    method: _Method = "ssglrp",
    look: _Look,
) -> Response:
    """One heatmap over the whole photo, with caption and colour bar; the style `versus` shows two classes."""
    question = Question(targets, against, (method,), look=look)
    drawn = await _service(request).answer(
        request, engine, lambda photo, given_up: engine.picture(photo, question, given_up)
    )
    return Response(drawn, media_type="image/png")


@router.post("/mask", responses=_WITH_PHOTO, openapi_extra=_BODY)
async def mask(
    request: Request,
    engine: _Served,
    regions: _Regions,
    names: Annotated[
        tuple[_Name, ...],
        Query(
            alias="class",
            max_length=_MOST.against,
            description="A class to tell of, besides the most probable ones.",
        ),
    ] = (),
    fill: Annotated[
        Literal["colour", "blur"],
        Query(
            description="What covered pixels show: the mean colour of the model's preprocessing, or the "
            "photo blurred."
        ),
    ] = "colour",
) -> answers.Masked:
    """Cover regions of a photo, and see how the probabilities change."""
    covered = [_region(text) for text in regions]
    return await _service(request).answer(
        request, engine, lambda photo, _: engine.mask(photo, covered, fill, names)
    )


def _region(text: str) -> Rectangle:
    top, left, bottom, right = map(int, text.split(","))
    return top, left, bottom, right
