"""Refuses answers that cannot become a working project, before anything is written.

For each problem one line with what is wrong and what to use instead, then one command to paste that keeps every other
answer: cookiecutter prints a traceback of its own after a failing hook, so the text must stand by itself.

Standard library only, no network: cookiecutter runs this file alone, with its own Python. Importing it runs nothing.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import shlex
import sys
import unicodedata

ANSWERS_JSON = r"""{{ cookiecutter | tojson }}"""

MAX_SLUG = 40
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
FREE_TEXT = ("project_name", "description", "author")

# Names of the project's own layout, of programs in .venv/bin, and standard-library modules of Python 3.10-3.12 that
# a later Python, which may be the one running this hook, no longer lists.
OWN_NAMES = """
activate conftest configs make pip pip3 python python3 runs setup src test tests uv
aifc asynchat asyncore audioop binhex cgi cgitb chunk crypt distutils imghdr imp lib2to3 mailcap msilib nis nntplib
ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu xdrlib
"""

# Every distribution, top-level import and command of requirements.lock, as an import name. A project of the same name
# would hide it, or be taken for it by pip. tests/test_names.py compares this list with the installed packages.
DEPENDENCY_NAMES = """
absl absl_py accelerate accelerate_config accelerate_estimate_memory accelerate_launch accelerate_merge_weights
aiofiles aiohappyeyeballs aiohttp aiosignal annotated_types antlr4 antlr4_python3_runtime anyio ast_serialize
async_timeout attr attrs backend_test_tools bionemo bionemo_core boto3 botocore braceexpand build certifi cffi
cffi_gen_src charset_normalizer check_model check_node click cloudpickle contourpy copying coreweave_evaluations
cryptography cuda cuda_bindings cuda_pathfinder cuda_toolkit cwevals cycler dateutil distro distutils_precedence
dmypy dns dnspython docker docstring_parser download_bionemo_data email_validator examples exceptiongroup f2py
fabric fiddle filelock fonttools forge frozenlist fsspec functorch google googleapis_common_protos graphviz grpc
grpcio h11 hatchling hf hf_xet httpcore httpx huggingface_cli huggingface_hub hydra hydra_core idna
importlib_metadata iniconfig isodate isympy jinja2 jmespath joblib jsonargparse kiwisolver libcst librt lightning
lightning_fabric lightning_utilities markdown markdown_it markdown_it_py markdown_py markupsafe matplotlib mdurl
megatron megatron_core ml_dtypes mpl_toolkits mpmath multidict mypy mypy_extensions mypyc narwhals nemo nemo_toolkit
nest_asyncio networkx ngcbase ngcsdk normalizer numexpr numpy nv_one_logger nv_one_logger_core
nv_one_logger_training_telemetry nvcf nvidia nvidia_cublas nvidia_cuda_cupti nvidia_cuda_nvrtc nvidia_cuda_runtime
nvidia_cudnn_cu13 nvidia_cufft nvidia_cufile nvidia_curand nvidia_cusolver nvidia_cusparse nvidia_cusparselt_cu13
nvidia_nccl_cu13 nvidia_nvjitlink nvidia_nvshmem_cu13 nvidia_nvtx omegaconf onnx opentelemetry opentelemetry_api
opentelemetry_exporter_http_transport opentelemetry_exporter_otlp_common opentelemetry_exporter_otlp_proto_common
opentelemetry_exporter_otlp_proto_http opentelemetry_proto opentelemetry_sdk opentelemetry_semantic_conventions
organization overrides package_readme packaging pandas pathspec peft pil pillow platformdirs pluggy polling2 pooch
prettytable propcache protobuf proton proton_viewer psutil py py_test pycparser pydantic pydantic_core
pydevd_plugins pyftmerge pyftsubset pygmentize pygments pygrun pylab pyparsing pyproject_build pyproject_hooks
pytest pytest_timeout python_dateutil pytorch_lightning pytz pyyaml regex registry requests requests_toolbelt rich
ruamel ruamel_yaml ruff s3transfer safetensors scikit_learn scipy scripts setuptools shortuuid six sklearn sniffio
strenum stubgen stubtest sympy tensorboard tensorboard_data_server tests text_unidecode threadpoolctl tiny_agents
tokenizers toml tomli tomlkit torch torchfrtrace torchgen torchmetrics torchrun torchvision tqdm transformers
transformers_cli triton trove_classifiers ttx types_pyyaml typeshed_client typing_extensions typing_inspection
tzdata urllib3 validators wandb wb wcwidth webdataset werkzeug wget wrapt wrapt_stubs xxhash yaml yaml_stubs yarl
zipp
"""

RESERVED = frozenset((OWN_NAMES + DEPENDENCY_NAMES).split())


def clash(slug: str) -> str | None:
    """What the import name of this slug would collide with, in words; None if nothing."""
    package = slug.replace("-", "_")
    if keyword.iskeyword(package):
        return "a Python keyword"
    if package in sys.stdlib_module_names:
        return "a module of the standard library"
    if package in RESERVED:
        return "a name that the project's dependencies or layout already use"
    return None


def suggest_slug(text: str) -> str:
    """The nearest slug that passes every check."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    if not slug[:1].isalpha():
        slug = f"project-{slug}".strip("-")
    slug = slug[:MAX_SLUG].strip("-")
    if clash(slug):
        slug = f"{slug[: MAX_SLUG - len('-project')].strip('-')}-project"
    return slug


def slug_problem(slug: str) -> str | None:
    """Why this cannot be the project's slug; None if it can."""
    if not SLUG.fullmatch(slug):
        return "must be lower-case letters and digits with single hyphens between them, starting with a letter"
    if len(slug) > MAX_SLUG:
        return f"is {len(slug)} characters long, at most {MAX_SLUG} fit"
    taken = clash(slug)
    return f"would make the package '{slug.replace('-', '_')}', {taken}" if taken else None


def is_control(character: str) -> bool:
    """Whether this is a control character, a line break of any script, or half a character."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def one_line(text: str) -> str:
    """The text with its control characters made spaces, and no two spaces in a row."""
    return " ".join("".join(" " if is_control(c) else c for c in text).split())


def text_problem(text: str) -> str | None:
    """Why this cannot be a line of free text; None if it can. Quotes, backslashes and any script are fine."""
    if any(map(is_control, text)):
        return "must be one line without control characters"
    return None if text.strip() else "must not be empty"


def find_problems(answers: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The problems, a line each, and the answers that would mend them."""
    lines, mended = [], {}
    reason = slug_problem(answers["project_slug"])
    if reason:
        mended["project_slug"] = suggest_slug(answers["project_slug"])
        lines.append(f"error: project_slug {answers['project_slug']!r} {reason}; try '{mended['project_slug']}'.")
    for key in FREE_TEXT:
        reason = text_problem(answers[key])
        if reason:
            mended[key] = one_line(answers[key]) or "Unnamed"
            lines.append(f"error: {key} {answers[key]!r} {reason}; try {mended[key]!r}.")
    return lines, mended


def again(answers: dict[str, str], mended: dict[str, str]) -> str:
    """The command that gives the same answers again, mended."""
    words = ["cookiecutter", answers.get("_template", ".")]
    if answers.get("_checkout"):
        words += ["--checkout", answers["_checkout"]]
    here = os.environ.get("PWD")
    if answers.get("_output_dir", here) != here:
        words += ["--output-dir", answers["_output_dir"]]
    words.append("--no-input")
    words += [f"{key}={literal(value)}" for key, value in {**answers, **mended}.items() if not key.startswith("_")]
    return shlex.join(words)


def literal(value: str) -> str:
    """The value as cookiecutter must be given it: it renders what it is given, so braces need its raw block."""
    opening, closing = "{" + "%", "%" + "}"
    if re.search(r"\{[%#{]", value):
        return f"{opening} raw {closing}{value}{opening} endraw {closing}"
    return value


def main() -> int:
    """Prints the problems; the exit status tells cookiecutter whether to go on."""
    answers = json.loads(ANSWERS_JSON)
    lines, mended = find_problems(answers)
    if not lines:
        return 0
    lines.append("Nothing was written (the traceback below is cookiecutter's way to stop). Paste this instead:")
    print("", *lines, f"    {again(answers, mended)}", "", sep="\n", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
