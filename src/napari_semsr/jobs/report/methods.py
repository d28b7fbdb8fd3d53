"""What was done, as sentences for a Methods section, with the papers it rests on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_semsr.core import software_versions
from napari_semsr.jobs.report.numbers import (
    DECORRELATION,
    EMD,
    ERRORS,
    FRC,
    MATCHED,
    SHARPNESS,
    Measured,
)
from napari_semsr.reporting import written

if TYPE_CHECKING:
    from napari_semsr.jobs.report.job import Pair, Picture, ReportParts
    from napari_semsr.jobs.report.records import StoredNumbers

REFERENCES = {
    "nieuwenhuizen": "R. P. J. Nieuwenhuizen et al., Measuring image resolution in "
    "optical nanoscopy, Nat. Methods 10, 557 (2013), doi:10.1038/nmeth.2448.",
    "banterle": "N. Banterle, K. H. Bui, E. A. Lemke, M. Beck, Fourier ring "
    "correlation as a resolution criterion for super-resolution microscopy, "
    "J. Struct. Biol. 183, 363 (2013), doi:10.1016/j.jsb.2013.05.004.",
    "koho": "S. Koho et al., Fourier ring correlation simplifies image restoration in "
    "fluorescence microscopy, Nat. Commun. 10, 3103 (2019), "
    "doi:10.1038/s41467-019-11024-z.",
    "van-heel": "M. van Heel, M. Schatz, Fourier shell correlation threshold criteria, "
    "J. Struct. Biol. 151, 250 (2005), doi:10.1016/j.jsb.2005.05.009.",
    "rieger": "B. Rieger, I. Droste, F. Gerritsma, T. ten Brink, S. Stallinga, Opt. "
    "Express 32, 21767 (2024).",
    "descloux": "A. Descloux, K. S. Grußmayer, A. Radenovic, Parameter-free image "
    "resolution estimation based on decorrelation analysis, Nat. Methods 16, 918 "
    "(2019), doi:10.1038/s41592-019-0515-7.",
    "culley": "S. Culley et al., Quantitative mapping and minimization of "
    "super-resolution optical imaging artifacts, Nat. Methods 15, 263 (2018), "
    "doi:10.1038/nmeth.4605.",
    "wang": "Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality "
    "assessment: from error visibility to structural similarity, IEEE Trans. Image "
    "Process. 13, 600 (2004), doi:10.1109/TIP.2003.819861.",
    "de-haan": "K. de Haan, Z. S. Ballard, Y. Rivenson, Y. Wu, A. Ozcan, Resolution "
    "enhancement in scanning electron microscopy using deep learning, Sci. Rep. 9, "
    "12050 (2019), doi:10.1038/s41598-019-48444-2.",
    "gao": "X. Gao et al., Sci. Rep. 14 (2024), doi:10.1038/s41598-024-57056-4.",
}
"""Papers that the measures come from."""


@dataclass(slots=True)
class _Cites:
    """Numbers papers in the order in which they are cited."""

    keys: list[str] = field(default_factory=list)

    def __call__(self, *keys: str) -> str:
        self.keys += [key for key in keys if key not in self.keys]
        return f"[{', '.join(str(self.keys.index(key) + 1) for key in keys)}]"

    def listed(self) -> tuple[str, ...]:
        return tuple(
            f"[{number}] {REFERENCES[key]}"
            for number, key in enumerate(self.keys, start=1)
        )


def tell_methods(parts: "ReportParts") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say what was done, and nothing that was not."""
    cites = _Cites()
    paragraphs = [
        _versions(),
        *_sizes(parts.pictures),
        *_networks(parts.pictures),
        *_alone(parts.pictures, cites),
        *_compared(parts.pairs, cites),
        *_read(parts.records, cites),
    ]
    return tuple(paragraphs), cites.listed()


def _versions() -> str:
    known = software_versions()
    names = {"python": "Python", "numpy": "NumPy", "scipy": "SciPy"}
    others = ", ".join(f"{said} {known[n]}" for n, said in names.items() if n in known)
    return f"Images were measured with napari-semsr {known['napari-semsr']} ({others})."


def _sizes(pictures: "Sequence[Picture]") -> Iterable[str]:
    """Say pixel sizes and where they come from, images of one size together."""
    told: dict[str, list[str]] = {}
    for item in pictures:
        if item.is_map:
            continue
        size = item.image.pixel_size_nm
        if size is None:
            said = "not known, so that lengths are in pixels"
        else:
            y, x = (written(v, ".6g") for v in size)
            said = f"{y} nm" if y == x else f"{y} nm down and {x} nm across"
            error = item.image.pixel_size_sd_nm
            if error is not None:
                said += f" ± {written(max(error), '.2g')} nm (standard deviation)"
            said += f", {item.size_from}"
        told.setdefault(said, []).append(item.label)
    if told:
        sizes = (
            f"The pixel size of {_names(names)} is {said}."
            for said, names in told.items()
        )
        yield " ".join(sizes)


def _networks(pictures: "Sequence[Picture]") -> Iterable[str]:
    said = [
        f"{item.label} was made by the network {name} ({digest})."
        for item in pictures
        for name, digest in item.networks
    ]
    if said:
        said.append(
            "What a network draws is an estimate; resolution that is measured in its "
            "picture alone tells how fine it draws."
        )
        yield " ".join(said)


def _alone(pictures: "Sequence[Picture]", cites: _Cites) -> Iterable[str]:
    """Say what was measured of images by themselves."""
    of_halves = [item for item in pictures if "halves" in item.measured.results]
    split = [item for item in pictures if item not in of_halves]
    for group, how in (
        (of_halves, "of two mosaics, each of half of the frames of one scan"),
        (split, "of their diagonally split pixels"),
    ):
        done = [item for item in group if _found(item.measured, FRC)]
        if not done:
            continue
        papers = _frc_papers(done, cites)
        paper = cites("koho") if group is split else ""
        yield _sentence(
            "The resolution of single images is the Fourier ring correlation "
            f"{papers} {how} {paper}".rstrip(),
            (FRC, done),
        )
    done = [item for item in pictures if _found(item.measured, DECORRELATION)]
    if done:
        yield _sentence(
            f"The cut-off of single images is that of decorrelation analysis "
            f"{cites('descloux')}",
            (DECORRELATION, done),
        )
    done = [item for item in pictures if "spectrum" in item.measured.results]
    if done:
        yield (
            "Power spectra were averaged over rings of spatial frequency, the mean "
            "taken off and with a Tukey window."
        )
    done = [item for item in pictures if _found(item.measured, SHARPNESS[0])]
    if done:
        yield (
            "The average gradient is the mean of √((Δx² + Δy²)/2), the contrast the "
            "mean square difference of neighbouring pixels, and the spatial frequency "
            "the root of the sum of both mean square differences along rows and "
            f"columns {cites('gao')}, grey levels scaled to 255 over the data range."
        )


def _frc_papers(done: "Sequence[Picture | Pair]", cites: _Cites) -> str:
    found = [item.measured.number(FRC) for item in done]
    fixed = all(item is None or "1/7" in item.threshold for item in found)
    papers = ("nieuwenhuizen", "banterle")
    return cites(*papers) if fixed else cites(*papers, "van-heel")


def _sentence(start: str, what: "tuple[str, Sequence[Picture | Pair]]") -> str:
    """Add the method as it was said, and where there is no number and why."""
    name, done = what
    found = [(item.label, item.measured.number(name)) for item in done]
    methods: dict[str, None] = {}
    extras: dict[str, list[str]] = {}
    for label, number in found:
        if number is not None and number.method:
            first, *rest = number.method.split("; ")
            methods[first] = None
            for extra in rest:
                extras.setdefault(extra, []).append(label)
    told = [*methods, *(f"{extra} ({_names(of)})" for extra, of in extras.items())]
    said = f"{start}: {'; '.join(told)}." if told else f"{start}."
    refused: dict[str, list[str]] = {}
    for label, number in found:
        if number is not None and number.reason:
            refused.setdefault(number.reason.rstrip("."), []).append(label)
    for reason, labels in refused.items():
        said += f" No value is given for {_names(labels)} ({reason})."
    return said


def _compared(pairs: "Sequence[Pair]", cites: _Cites) -> Iterable[str]:
    """Say what was measured between two images."""
    done = [item for item in pairs if _found(item.measured, FRC)]
    if done:
        yield _sentence(
            "The resolution of pairs is the Fourier ring correlation of both images "
            f"{_frc_papers(done, cites)}",
            (FRC, done),
        )
    if any(_found(item.measured, MATCHED[0]) for item in pairs):
        yield (
            "Pairs were compared by PSNR, SSIM "
            f"{cites('wang')} (11 x 11 Gaussian window, K₁ = 0.01, K₂ = 0.03) and "
            "NRMSE, both as they are and after the gain and offset that bring the "
            "image nearest to its reference."
        )
    if any(_found(item.measured, EMD) for item in pairs):
        yield "Grey levels were compared by the earth mover's distance."
    if any(_found(item.measured, ERRORS[0]) for item in pairs):
        yield (
            f"Error maps {cites('culley')}: the enhanced image was registered to a "
            "part of a pixel, blurred by the Gaussian and fitted by the gain and "
            "offset that bring it nearest to the reference; RSE is the root mean "
            "square difference that is left, RSP Pearson's correlation."
        )


_OF_RECORDS = {
    "frc": ("Fourier ring correlation", ("nieuwenhuizen", "banterle")),
    "frc-map": ("Maps of local Fourier ring correlation", ("nieuwenhuizen",)),
    "decorrelation": ("Decorrelation analysis", ("descloux",)),
    "spectrum": ("Power spectra, averaged over rings,", ()),
    "error-map": ("Error maps", ("culley",)),
    "metrics": ("PSNR, SSIM and NRMSE", ("wang",)),
    "gaps": ("Gaps between particles", ("de-haan",)),
    "profile": ("Line profiles", ()),
    "histogram": ("Histograms of grey levels", ()),
    "calibrate": ("The pixel size by a grating of known pitch", ()),
    "register": ("Registration by mutual information", ()),
    "judge": ("Networks judged against an SEM image of the same place", ("wang",)),
}


def _read(records: "Sequence[StoredNumbers]", cites: _Cites) -> Iterable[str]:
    """Say which measurements were read from files."""
    verbs = {item.verb for item in records}
    for verb in (*_OF_RECORDS, *sorted(verbs - {*_OF_RECORDS})):
        found = [item for item in records if item.verb == verb]
        if not found:
            continue
        words, papers = _OF_RECORDS.get(verb, (verb.capitalize(), ()))
        methods = dict.fromkeys(
            n.method for item in found for n in item.numbers if n.method
        )
        papers = (*papers, *_of_split(" ".join(methods)))
        if verb == "metrics" and all(_is_null(item, "psnr_db") for item in found):
            words, papers = "Average gradient, contrast and spatial frequency", ("gao",)
        paper = f" {cites(*papers)}" if papers else ""
        how = f": {'; '.join(methods)}" if methods else ""
        of = dict.fromkeys(name for item in found for name in item.images)
        images = f" of {_names(list(of))}" if of else ""
        yield (
            f"{words}{paper}{images} by semsr {verb}{how}, as stored in "
            f"{_names([item.name for item in found])}."
        )


def _is_null(item: "StoredNumbers", key: str) -> bool:
    """Whether a file holds no such number."""
    return item.content.get(key) is None


def _of_split(method: str) -> tuple[str, ...]:
    """Papers of how one image was split."""
    split = {"diagonal": ("koho",), "binomial": ("rieger",)}
    return next((papers for word, papers in split.items() if word in method), ())


def _found(measured: Measured, name: str) -> bool:
    """Whether something was measured, or tried."""
    return measured.number(name) is not None


def _names(names: Sequence[str]) -> str:
    """Join names."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
