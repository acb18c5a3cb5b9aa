"""Which imports of a serialised model are harmless. The scanner loads this file alone, without the platform.

Source: what scikit-learn, XGBoost, LightGBM, CatBoost, PyTorch, pandas and SciPy write; picklescan for what runs code.
"""

from __future__ import annotations

import io
import pickle
import re
import sys
from typing import Final

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

_KNOWN: Final = {
    "sklearn|xgboost|lightgbm|catboost": r"(?!load|fetch|read|dump|save|open|exec|eval|run|import|clear_|get_data).*",
    "numpy": r"_?[A-Z]\w*|_(ma)?reconstruct|scalar|dtype|ndarray|_frombuffer|__(bit_generator|randomstate|generator)_ctor"
    r"|matrix|__pyx_unpickle_\w+"
    r"|record|recarray|(bool|str|bytes|object|void)_?|(float|u?int|complex|datetime|timedelta)\d+|longdouble|intc|intp|exp2?|expm1"
    r"|log(2|10|1p)?|sqrt|cbrt|square|abs(olute)?|sign|sin|cos|tanh?|maximum|minimum|mean|median|sum|std|var|argmax|argmin",
    "scipy": r"_?[A-Z]\w*|(csr|csc|coo|bsr|dia|dok|lil)_(matrix|array)|rv_\w*frozen|\w+_gen|interp1d|expit"
    r"|logit|__pyx_unpickle_\w+",
    "pandas": r"_?[A-Z]\w*|_unpickle_\w+|_new_\w+|new_block|__pyx_unpickle_\w+|__newobj__",
    "joblib": r"NumpyArrayWrapper|NDArrayWrapper|ZNDArrayWrapper",
    "torch": r"_?[A-Z]\w*|_rebuild_\w+|_load_from_bytes|device|b?float\d*|u?int\d+|bool|long|double|half"
    r"|complex\d+|q\w?int\d+",
    "collections": r"OrderedDict|defaultdict|Counter|deque",
    "copyreg": r"_reconstructor|__newobj__|__newobj_ex__",
    "_codecs": "encode",
    "datetime": r"datetime|date|time|timedelta|timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": r"UUID|SafeUUID",
}
"""Packages whose objects models are made of, and what of them is harmless: classes, and functions that only make them."""
_DOORS: Final = re.compile(
    r"(numpy\.(testing|distutils|f2py|ctypeslib|lib\.(npyio|_npyio|_datasource)|memmap)|pandas\.(io|util|compat|core\.computation)"
    r"|torch\.(package|hub|jit|utils|distributed|_dynamo|_inductor|fx|onnx|serialization|multiprocessing|ops|_ops|testing)"
    r"|sklearn\.(datasets|externals|utils\.(_testing|fixes|discovery|_show_versions))|scipy\.(io|_lib|datasets)"
    r"|xgboost\.(dask|spark|testing|collective|tracker|federated)|joblib\.(?!numpy_pickle))(\.|$)"
)
"""Modules of them that open files, load code or start programs."""
_CALCULATES: Final = frozenset(
    ("functools", "itertools", "math", "re", "copy", "array", "statistics", "typing", "enum")
)
_NEVER: Final = frozenset(
    """
    Popen Path Thread Process DataSource memmap PackageImporter HDFStore ExcelFile Unpickler import_module rmtree
    urlretrieve urlopen check_output check_call call system popen remove unlink listdir makedirs attrgetter
    methodcaller getattr setattr compile exec eval open load loads __import__ _ufunc_reconstruct load_library
    exec_command runstring read_pickle
    """.split()  # noqa: SIM905 - a list of words is read more easily
)
"""Names that run or load something wherever they come from: modules pass on what they import."""
_BUILTINS: Final = frozenset(
    {
        "set",
        "frozenset",
        "list",
        "dict",
        "tuple",
        "bytearray",
        "bytes",
        "int",
        "float",
        "bool",
        "str",
        "complex",
        "slice",
    }
    | {"range", "object", "Ellipsis", "NotImplemented"}
)


def level(module: str, name: str) -> str:
    """Clean, Suspicious or Dangerous, of one import."""
    plain = pickle.PROTO + b"\x02c" + f"{module}\n{name}\n".encode("utf-8", "replace") + b"."
    judged = scan_pickle_bytes(io.BytesIO(plain), "import")
    if judged.issues_count or any(one.safety is SafetyLevel.Dangerous for one in judged.globals):
        return "Dangerous"
    top = module.partition(".")[0]
    if top in ("builtins", "__builtin__"):
        return "Clean" if name in _BUILTINS else "Dangerous"
    first, *deeper = name.split(".")
    # A path leads through whatever a module imports: ("uuid", "os.system"), ("numpy", "sys").
    if deeper and (not first[:1].isupper() or {first, *deeper} & (_NEVER | sys.stdlib_module_names)):
        return "Dangerous"
    if name in _NEVER or (name in sys.stdlib_module_names and name != module):
        return "Dangerous"
    for tops, names in _KNOWN.items():
        if top in tops.split("|"):
            return "Clean" if not _DOORS.match(f"{module}.") and re.fullmatch(names, name) else "Suspicious"
    if top in sys.stdlib_module_names and not name.lstrip("_")[:1].isupper() and top not in _CALCULATES:
        return "Dangerous"
    return "Suspicious"
