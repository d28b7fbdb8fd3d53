"""Functions that are made of verbs; written by scripts/write_stub.py."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

from numpy.typing import ArrayLike

from napari_semsr.analysis.decorrelation import Decorrelation
from napari_semsr.analysis.frc.correlation import FrcResult
from napari_semsr.analysis.frc.map import FrcMap
from napari_semsr.analysis.gaps import Gaps
from napari_semsr.analysis.metrics import Metrics
from napari_semsr.core.calibration import FieldDistortion
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Progress
from napari_semsr.demonstration.job import DemoResult
from napari_semsr.io.transforms import StoredTransform
from napari_semsr.jobs.adapt.job import Adapted
from napari_semsr.jobs.calibrate import CalibrationReport, ScaleBarReport
from napari_semsr.jobs.convert import ConvertedFile
from napari_semsr.jobs.crop import Cropped
from napari_semsr.jobs.enhance import EnhancedFile
from napari_semsr.jobs.figure import CreatedFigure
from napari_semsr.jobs.info import Description, DoctorReport
from napari_semsr.jobs.measure.compare import ErrorMapReport
from napari_semsr.jobs.measure.profile import ProfileReport
from napari_semsr.jobs.measure.resolution import SpectrumReport
from napari_semsr.jobs.models import ModelFile, ModelList
from napari_semsr.jobs.pairs import CreatedPairs
from napari_semsr.jobs.register import Registered
from napari_semsr.jobs.replay import ReplayReport
from napari_semsr.jobs.restore import RestoredFile
from napari_semsr.jobs.simulate import SimulatedScan
from napari_semsr.jobs.stitch import StitchedFile
from napari_semsr.jobs.train import Trained
from napari_semsr.registration.landmarks import Landmarks
from napari_semsr.stitching.state import Corrections

PathLike = str | os.PathLike[str]
Source = Micrograph | ArrayLike | PathLike
Report = Callable[[Progress], None]

class Reading(TypedDict, total=False):
    series: int | None  # None
    level: int  # 0
    channel: int | None  # None
    time: int | None  # None
    z: int | None  # None
    plane: int | None  # None
    dataset: str | None  # None
    pixel_size_nm: tuple[float, float] | float | None  # None
    pixel_size_sd_nm: tuple[float, float] | float | None  # None
    crop_databar: bool  # True
    databar_rows: int | None  # None
    colour: Literal["refuse", "luminance"]  # "refuse"

def info(
    path: PathLike,
    *,
    methods: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> Description: ...
def convert(
    image: Source,
    output: PathLike,
    *,
    dtype: Literal["uint8", "uint16", "float32"] | None = None,
    zarr_version: Literal["0.5", "0.4"] = "0.5",
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> ConvertedFile: ...

class CropKeywords(Reading, total=False):
    like_output: PathLike | None  # None
    box: tuple[int, int, int, int] | None  # None
    box_nm: tuple[float, float, float, float] | None  # None
    align: bool  # False
    search: int  # 32
    gap_free: bool  # False
    like_pixel_size_nm: tuple[float, float] | float | None  # None
    dtype: Literal["uint8", "uint16", "float32"] | None  # None
    overwrite: bool  # False
    resume: bool  # False
    progress: Report | None  # None

@overload
def crop(
    image: Source,
    output: None = None,
    like: Source | None = None,
    **options: Unpack[CropKeywords],
) -> Micrograph: ...
@overload
def crop(
    image: Source,
    output: PathLike,
    like: Source | None = None,
    **options: Unpack[CropKeywords],
) -> Cropped: ...
def register(
    moving: Source,
    fixed: Source,
    output: PathLike | None = None,
    *,
    landmarks: Landmarks | PathLike | None = None,
    transform: StoredTransform | PathLike | None = None,
    transform_out: PathLike | None = None,
    model: Literal["similarity", "affine", "elastic"] = "affine",
    search: Literal["near", "full"] = "near",
    landmarks_only: bool = False,
    series: int | None = None,
    level: int = 0,
    channel: int | None = None,
    time: int | None = None,
    z: int | None = None,
    plane: int | None = None,
    dataset: str | None = None,
    pixel_size_nm: tuple[float, float] | float | None = None,
    pixel_size_sd_nm: tuple[float, float] | float | None = None,
    crop_databar: bool = True,
    databar_rows: int | None = None,
    colour: Literal["refuse", "luminance"] = "refuse",
    overwrite: bool = False,
    progress: Report | None = None,
    **sides: Any,
) -> Registered: ...
def simulate(
    out_dir: PathLike,
    image: Source | None = None,
    *,
    view_pixel_nm: float | None = None,
    view_field: float | None = None,
    view_shift: float = 0.03,
    view_turn_deg: float = 4.0,
    view_mirror: bool = False,
    view_shear: float = 0.01,
    view_bending_nm: float = 20.0,
    view_electrons: float = 100.0,
    view_charging: float = 0.1,
    phantom: Literal[
        "grating", "pits", "particles", "lattice", "circuit", "fracture"
    ] = "circuit",
    pitch_nm: float | None = None,
    relief_nm: float | None = None,
    angle_deg: float = 0.0,
    disorder: float = 0.0,
    packing: Literal["random", "hexagonal"] = "random",
    sidewall_nm: float = 12.0,
    optics: Literal["pupil", "gaussian"] = "pupil",
    numerical_aperture: float = 1.8,
    refractive_index: float = 1.9,
    coherence_factor: float | None = 1.0,
    spherical_waves: float = 0.0,
    coma_waves: float = 0.0,
    resolution_nm: float | None = None,
    depth_of_field_nm: float | None = None,
    focus_nm: float = 0.0,
    wavelength_nm: float = 550.0,
    objective: float = 100.0,
    microsphere: float = 3.25,
    microsphere_um: float = 57.0,
    camera_pixel_um: float = 6.5,
    field: Literal["round", "square"] = "round",
    vignetting: float | None = None,
    offcentre: float = 0.0,
    tilt: float = 0.0,
    distortion: float = 0.0,
    dust: int = 0,
    photons: float = 2000.0,
    read_noise: float = 10.0,
    dark_counts: float | None = None,
    full_scale: float = 60000.0,
    frames_grid: tuple[int, int] = ...,
    frame_px: int = 256,
    overlap: float = 0.35,
    jitter_px: float = 6.0,
    drift_px: float = 0.0,
    stage_scale: float = 1.0,
    stage_skew: float = 0.0,
    order: Literal[
        "raster", "row", "serpentine", "column", "column-serpentine"
    ] = "raster",
    first: Literal["top-left", "top-right", "bottom-left", "bottom-right"] = "top-left",
    illumination_drift: float = 0.0,
    bad_frames: int = 0,
    focus_drift_nm: float = 0.0,
    contact_lost_from: int | None = None,
    light_fall: float = 0.0,
    oversampling: int | None = None,
    image_binning: float | None = None,
    seed: int = 0,
    noise_seed: int = 0,
    positions: Literal["px", "nm", "none"] = "px",
    pixel_size_error: float = 0.0,
    exposures: int = 0,
    focal_series: int = 0,
    focal_fields: Literal["all", "middle"] = "all",
    focal_shift_px: float = 1.5,
    sem: bool = False,
    sem_view: bool = False,
    live: float | None = None,
    live_faults: bool = False,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> SimulatedScan: ...
def stitch(
    folder: PathLike,
    output: PathLike,
    *,
    positions: PathLike | None = None,
    positions_out: PathLike | None = None,
    flat_field: str = "auto",
    dark: float | str | None = None,
    grid: tuple[int, int] | None = None,
    order: Literal["row", "serpentine", "column", "column-serpentine"] | None = None,
    first: Literal["top-left", "top-right", "bottom-left", "bottom-right"]
    | None = None,
    overlap: float | None = None,
    max_shift_px: float | None = None,
    stage_model: Literal["affine", "shift"] = "affine",
    rotation: bool = False,
    distortion: float | Literal["auto", "none"] | None = None,
    blend: Literal["feather", "seam"] = "feather",
    match_gain: bool = True,
    significance: float = 4.0,
    pixel_size_nm: tuple[float, float] | float | None = None,
    focus: Literal["max", "none"] = "none",
    pixel_size_sd_nm: tuple[float, float] | float | None = None,
    halves: bool = False,
    known_distortion: FieldDistortion | None = None,
    databar_rows: int | None = None,
    colour: Literal["refuse", "luminance"] = "refuse",
    series: int | None = None,
    channel: int | None = None,
    dtype: Literal["float32", "float64", "uint8", "uint16"] = "float32",
    other_frames: Literal["refuse", "leave-out"] = "refuse",
    follow: bool = False,
    until: int | None = None,
    idle: float | None = None,
    corrections: Corrections | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Report | None = None,
) -> StitchedFile: ...
def calibrate(
    grating: Source,
    output: PathLike | None = None,
    *,
    bar: bool | str | float = False,
    pitch_nm: float | None = None,
    pitch_sd_nm: float = 0.0,
    lattice: Literal["auto", "lines", "square", "hexagonal"] = "auto",
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> CalibrationReport | ScaleBarReport: ...
def degrade(
    image: Source,
    output: PathLike | None = None,
    *,
    drift_px: float = 0.0,
    line_jitter_px: float = 0.0,
    charging: float = 0.0,
    photons: float = 0.0,
    read_noise: float = 0.0,
    kind: Literal["blur", "fog", "hybrid", "none"] = "blur",
    uniform_fog: bool = False,
    airlight: float | None = None,
    stretch: bool = True,
    seed: int = 0,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> Micrograph: ...
def pairs(
    low: Sequence[Micrograph] | Source,
    high: Sequence[Micrograph] | Source,
    output: PathLike,
    *,
    transform: StoredTransform | PathLike | None = None,
    patch: int = 256,
    crop: int | None = None,
    step: int | None = None,
    scale: int | None = None,
    pixel_nm: float | None = None,
    low_pixel_nm: float | None = None,
    high_pixel_nm: float | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    min_contrast: float = 0.02,
    min_correlation: float | None = None,
    max_shift_px: float = 2.0,
    denoise: bool = False,
    sharpen: bool = False,
    equalise: bool = False,
    second_scan: bool = False,
    align: bool = False,
    prepare: Literal["both", "low", "high"] = "both",
    match: Literal["none", "name"] = "none",
    whole_images: bool = False,
    leave_out: str = "",
    seed: int = 0,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> CreatedPairs: ...
def adapt(
    mosaic: Source,
    sem: Sequence[Source],
    output: PathLike,
    apply: Sequence[Source] | None = None,
    *,
    landmarks: Landmarks | PathLike | None = None,
    transform: StoredTransform | PathLike | None = None,
    model: Literal["similarity", "affine", "elastic"] = "affine",
    search: Literal["near", "full"] = "near",
    landmarks_only: bool = False,
    minutes: float | None = None,
    cut_off_nm: float | None = None,
    seed: int = 0,
    device: str = "auto",
    series: int | None = None,
    level: int = 0,
    channel: int | None = None,
    time: int | None = None,
    z: int | None = None,
    plane: int | None = None,
    dataset: str | None = None,
    pixel_size_nm: tuple[float, float] | float | None = None,
    pixel_size_sd_nm: tuple[float, float] | float | None = None,
    crop_databar: bool = True,
    databar_rows: int | None = None,
    colour: Literal["refuse", "luminance"] = "refuse",
    overwrite: bool = False,
    resume: bool = False,
    progress: Report | None = None,
    **sides: Any,
) -> Adapted: ...
def train(
    recipe: PathLike,
    output: PathLike,
    low: Source | None = None,
    high: Source | None = None,
    image: Source | None = None,
    second: Source | None = None,
    *,
    pairs: PathLike | None = None,
    transform: StoredTransform | PathLike | None = None,
    start_from: PathLike | None = None,
    steps: int | None = None,
    name: str | None = None,
    patch: int | None = None,
    from_scratch: bool = False,
    bank_folder: str | None = None,
    device: str = "auto",
    devices: int | None = None,
    nodes: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Report | None = None,
) -> Trained: ...

class EnhanceKeywords(Reading, total=False):
    model: PathLike | None  # None
    residual_map: PathLike | None  # None
    unfamiliar_map: PathLike | None  # None
    device: str  # "auto"
    tile: int | None  # None
    precision: Literal["auto", "fp32", "bf16"]  # "auto"
    norm: Literal["auto", "whole", "sampled", "tile"]  # "auto"
    haze: bool  # True
    resample: Literal["auto", "keep", "never"]  # "auto"
    denoise: float  # 1.0
    deblur: float  # 1.0
    dehaze: float  # 1.0
    noise_percent: float | None  # None
    blur_px: float | None  # None
    memory_gb: float | None  # None
    halo_tolerance: float | None  # None
    self_ensemble: bool  # False
    strength: float  # 1.0
    dtype: str | None  # None
    batch: int | None  # None
    scheduler: str | None  # None
    overwrite: bool  # False
    resume: bool  # False
    progress: Report | None  # None

@overload
def enhance(
    image: Source, output: None = None, **options: Unpack[EnhanceKeywords]
) -> Micrograph: ...
@overload
def enhance(
    image: Source, output: PathLike, **options: Unpack[EnhanceKeywords]
) -> EnhancedFile: ...

class RestoreKeywords(Reading, total=False):
    method: Literal[
        "wiener", "unsupervised-wiener", "richardson-lucy", "blind", "cls"
    ]  # "wiener"
    psf: str  # "estimate"
    iterations: int  # 10
    tv: float  # 0.0
    balance: float | None  # None
    seed: int  # 0
    tile: int | None  # None
    dtype: str | None  # None
    overwrite: bool  # False
    resume: bool  # False
    progress: Report | None  # None

@overload
def restore(
    image: Source, output: None = None, **options: Unpack[RestoreKeywords]
) -> Micrograph: ...
@overload
def restore(
    image: Source, output: PathLike, **options: Unpack[RestoreKeywords]
) -> RestoredFile: ...
def frc(
    a: Source,
    b: Source | None = None,
    *,
    criterion: Literal["1/7", "half-bit", "3-sigma"] = "1/7",
    estimator: Literal["plain", "exact"] | None = None,
    tukey: float = 0.5,
    reference: bool = False,
    cut_off_nm: float | None = None,
    split: Literal["diagonal", "binomial"] = "diagonal",
    gain: float = 1.0,
    offset: float = 0.0,
    read_noise: float = 0.0,
    allow_self: bool = False,
    register: bool = True,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> FrcResult: ...
def frc_map(
    a: Source,
    b: Source | None = None,
    output: PathLike | None = None,
    *,
    block: int | None = None,
    step: int = 16,
    blocks_per_axis: int | None = None,
    criterion: Literal["1/7", "half-bit", "3-sigma"] = "1/7",
    estimator: Literal["plain", "exact"] | None = None,
    tukey: float = 0.5,
    reference: bool = False,
    cut_off_nm: float | None = None,
    split: Literal["diagonal", "binomial"] = "diagonal",
    gain: float = 1.0,
    offset: float = 0.0,
    read_noise: float = 0.0,
    allow_self: bool = False,
    fill: Literal["none", "nearest"] = "none",
    register: bool = True,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> FrcMap: ...
def decorrelation(
    image: Source,
    *,
    method: Literal["published"] | None = None,
    block: int | None = None,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> Decorrelation: ...
def spectrum(
    image: Source,
    output: PathLike | None = None,
    *,
    tukey: float = 1.0,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> SpectrumReport: ...
def metrics(
    image: Source,
    reference: Source | None = None,
    *,
    data_range: float | None = None,
    match: Literal["affine"] | None = None,
    cut_off_nm: float | None = None,
    bins: int = 256,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> Metrics: ...
def error_map(
    reference: Source,
    enhanced: Source,
    output: PathLike | None = None,
    *,
    unit: Literal["grey", "percent"] = "grey",
    align: bool = True,
    search: int | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> ErrorMapReport: ...
def gaps(
    image: Source,
    reference: Source | None = None,
    *,
    table: PathLike | None = None,
    labels_out: PathLike | None = None,
    dark: bool = False,
    min_diameter_px: float = 4.0,
    labels: bool = False,
    reach: float = 1.0,
    bin_width: float | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> Gaps: ...
def profile(
    image: Source,
    line: tuple[float, float, float, float],
    *,
    width: float = 1.0,
    polarity: Literal["auto", "bright", "dark"] = "auto",
    prominence: float = 0.1,
    pixel: Literal["area", "point"] = "area",
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> ProfileReport: ...
def figure(
    images: Sequence[Source],
    output: PathLike,
    *,
    width_mm: float = 85.0,
    dpi: int = 300,
    columns: int | None = None,
    caption: str = "",
    no_caption: bool = False,
    caption_file: bool = False,
    greys: Literal["own", "common"] = "own",
    overlay: bool = False,
    inset: tuple[int, int, int, int] | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[Reading],
) -> CreatedFigure: ...
def replay(
    output: PathLike, *, inputs: PathLike | None = None, progress: Report | None = None
) -> ReplayReport: ...
def demo(
    folder: PathLike,
    *,
    frame_px: int = 224,
    seed: int = 0,
    overwrite: bool = False,
    progress: Report | None = None,
) -> DemoResult: ...
def doctor(*, progress: Report | None = None) -> DoctorReport: ...
def list_models(*, progress: Report | None = None) -> ModelList: ...
def model_info(
    model: PathLike = "sem-restore", *, progress: Report | None = None
) -> ModelFile: ...
def export_model(
    model: PathLike,
    output: PathLike,
    field: Source | None = None,
    *,
    authors: Sequence[PathLike] | None = None,
    to: Literal["semsr", "onnx", "bioimageio"] | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
) -> ModelFile: ...
def import_model(
    file: PathLike,
    *,
    name: str | None = None,
    pixel_size_nm: float | None = None,
    scaling: Literal["percentiles", "deviation", "levels"] | None = None,
    percentiles: tuple[float, float] | None = None,
    levels: tuple[float, float] | None = None,
    grey: Literal["input", "unit"] | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
) -> ModelFile: ...
