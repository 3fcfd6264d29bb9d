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
BRACES = re.compile(r"\{(?=[%#{])")  # begins what Jinja fills in
MAX_TEXT = 512  # of a package's description, says PyPI
MAX_SHOWN = 100
CHOICES = {
    "starter": ("mnist", "protein"),
    "license": ("Apache-2.0", "MIT", "BSD-3-Clause", "none"),
    "ci": ("github", "gitlab", "none"),
    "container": ("none", "docker"),
    "cluster": ("none", "slurm"),
}
QUESTIONS = ("project_name", "project_slug", "description", "author", *CHOICES)

# What cookiecutter overwrites even with --skip-if-file-exists (the package), and what the other hook may remove
OVERWRITTEN = (
    "src/{package}",
    "starters",
    ".github/workflows/ci.yml",
    ".github/workflows/versions.yml",
    ".github/dependabot.yml",
    ".gitlab-ci.yml",
    "Dockerfile",
    ".dockerignore",
    ".devcontainer/devcontainer.json",
    "slurm/train.sbatch",
)

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
absl absl_py accelerate accelerate_config accelerate_estimate_memory accelerate_launch accelerate_merge_weights aiofiles
aiohappyeyeballs aiohttp aiosignal alembic annotated_doc annotated_types antlr4 antlr4_python3_runtime anyio
ast_serialize async_timeout attr attrs backend_test_tools bin bionemo bionemo_core blinker boto3 botocore braceexpand
build cachetools certifi cffi cffi_gen_src charset_normalizer check_model check_node click cloudpickle contourpy copying
coreweave_evaluations cryptography cuda cuda_bindings cuda_pathfinder cuda_toolkit cwevals cycler databricks
databricks_sdk dateutil distro distutils_precedence dmypy dns dnspython docker docstring_parser dotenv
download_bionemo_data email_validator examples exceptiongroup execnet f2py fabric fastapi fiddle filelock flask
flask_cors fonttools forge frozenlist fsspec functorch git gitdb gitpython google google_auth googleapis_common_protos
graphene graphql graphql_core graphql_relay graphviz greenlet grpc grpcio gunicorn gunicornc h11 hatchling hf hf_xet
httpcore httpx huey huey_consumer huggingface_cli huggingface_hub hydra hydra_core idna importlib_metadata iniconfig
isodate isympy itsdangerous jinja2 jmespath joblib jsonargparse kiwisolver libcst librt lightning lightning_fabric
lightning_utilities mako mako_render markdown markdown_it markdown_it_py markdown_py markupsafe matplotlib mdurl
megatron megatron_core ml_dtypes mlflow mlflow_skinny mlflow_tracing mpl_toolkits mpmath multidict mypy mypy_extensions
mypyc narwhals nemo nemo_toolkit nest_asyncio networkx ngcbase ngcsdk normalizer numexpr numpy nv_one_logger
nv_one_logger_core nv_one_logger_training_telemetry nvcf nvidia nvidia_cublas nvidia_cuda_cupti nvidia_cuda_nvrtc
nvidia_cuda_runtime nvidia_cudnn_cu13 nvidia_cufft nvidia_cufile nvidia_curand nvidia_cusolver nvidia_cusparse
nvidia_cusparselt_cu13 nvidia_nccl_cu13 nvidia_nvjitlink nvidia_nvshmem_cu13 nvidia_nvtx omegaconf onnx opentelemetry
opentelemetry_api opentelemetry_exporter_http_transport opentelemetry_exporter_otlp_common
opentelemetry_exporter_otlp_proto_common opentelemetry_exporter_otlp_proto_http opentelemetry_proto opentelemetry_sdk
opentelemetry_semantic_conventions organization overrides package_readme packaging pandas pathspec peft pil pillow
pkg_resources platformdirs pluggy polling2 pooch prettytable propcache protobuf proton proton_viewer psutil py py_test
pyarrow pyasn1 pyasn1_modules pycparser pydantic pydantic_core pydevd_plugins pyftmerge pyftsubset pygmentize pygments
pygrun pylab pyparsing pyproject_build pyproject_hooks pytest pytest_timeout pytest_xdist python_dateutil python_dotenv
pytorch_lightning pytz pyyaml regex registry requests requests_toolbelt rich ruamel ruamel_yaml ruff s3transfer
safetensors scikit_learn scipy scripts setuptools shortuuid six sklearn skops smmap sniffio sqlalchemy sqlformat
sqlparse starlette strenum stubgen stubtest sympy tensorboard tensorboard_data_server tests text_unidecode threadpoolctl
tiny_agents tokenizers toml tomli tomlkit torch torchfrtrace torchgen torchmetrics torchrun torchvision tqdm
transformers transformers_cli triton trove_classifiers ttx types_pyyaml typeshed_client typing_extensions
typing_inspection tzdata urllib3 uvicorn validators wandb wb wcwidth webdataset werkzeug wget wrapt wrapt_stubs xdist
xxhash yaml yaml_stubs yarl zipp
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


def shows_nothing(text: str) -> bool:
    """Whether there are only spaces and invisible marks in it."""
    return all(unicodedata.category(character) in ("Cf", "Zs") for character in text)


def text_problem(text: str) -> str | None:
    """Why this cannot be a line of free text; None if it can. Quotes, backslashes and any script are fine."""
    if any(map(is_control, text)):
        return "must be one line without control characters"
    if BRACES.search(text):
        return "must not hold the marks of a template, which every update would fill in again"
    if len(text) > MAX_TEXT:
        return f"is {len(text)} characters long, at most {MAX_TEXT} fit"
    if shows_nothing(text):
        return "must not be empty"
    return None if text == text.strip() else "must not begin or end with a space"


def suggest_text(text: str) -> str:
    """The nearest text that passes every check."""
    spaced = "".join(" " if is_control(character) else character for character in text)
    line = BRACES.sub("{ ", " ".join(spaced.split()))[:MAX_TEXT].strip()
    return "Unnamed" if shows_nothing(line) else line


def suggest_choice(text: str, choices: tuple[str, ...]) -> str:
    """The choice that was meant, but for capitals; or the first."""
    return next((choice for choice in choices if choice.lower() == text.lower()), choices[0])


def problem(key: str, value: object) -> str | None:
    """Why this cannot be the answer to that question; None if it can."""
    if key in CHOICES:
        return None if value in CHOICES[key] else f"must be one of {', '.join(CHOICES[key])}"
    if not isinstance(value, str):
        return "must be text"
    return slug_problem(value) if key == "project_slug" else text_problem(value)


def suggest(key: str, value: object) -> str:
    """The nearest answer that passes every check."""
    text = "" if value is None else str(value)
    if key in CHOICES:
        return suggest_choice(text, CHOICES[key])
    return suggest_slug(text) if key == "project_slug" else suggest_text(text)


def find_problems(answers: dict[str, object]) -> tuple[list[str], dict[str, str]]:
    """The problems, a line each, and the answers that would mend them.

    Any JSON may be an answer: a replay file, which may have been edited, comes here as it is.
    """
    lines, mended = [], {}
    for key in QUESTIONS:
        reason = problem(key, answers[key])
        if reason:
            mended[key] = suggest(key, answers[key])
            lines.append(f"error: {key} {shown(answers[key])} {reason}; try {shown(mended[key])}.")
    package = answers["__package_name"]
    if "project_slug" not in mended and package != answers["project_slug"].replace("-", "_"):
        lines.append(f"error: __package_name {shown(package)} is not that of the project_slug; leave it out.")
    return lines, mended


def shown(value: object) -> str:
    """The value in quotes, cut where it would fill the screen."""
    quoted = repr(value)
    return quoted if len(quoted) <= MAX_SHOWN else f"{quoted[:MAX_SHOWN]}..."


def again(answers: dict[str, object], mended: dict[str, str]) -> str:
    """The command that gives the same answers again, mended."""
    here = os.environ.get("PWD", "")
    given = {key: mended.get(key, answers[key]) for key in QUESTIONS}
    if "_commit" not in answers:
        words = ["cookiecutter", answers.get("_template", ".")]
        if answers.get("_checkout"):
            words += ["--checkout", answers["_checkout"]]
        if answers.get("_output_dir", here) != here:
            words += ["--output-dir", answers["_output_dir"]]
        words += ["--no-input", *(f"{key}={value}" for key, value in given.items())]
    elif os.path.exists(os.path.join(here, ".cruft.json")):
        words = ["cruft", "update", "--skip-apply-ask", "--variables-to-update", json.dumps(mended)]
    else:
        words = ["cruft", "create", answers["_template"], "--checkout", answers["_commit"]]
        words += ["--no-input", "--extra-context", json.dumps(given)]
    return shlex.join(words)


def overwritten(package: str) -> list[str]:
    """What this folder holds, where it is not a new one, that cookiecutter or the other hook would not leave alone."""
    return [path for path in (name.format(package=package) for name in OVERWRITTEN) if os.path.exists(path)]


def main() -> int:
    """Prints the problems; the exit status tells cookiecutter whether to go on."""
    answers = json.loads(ANSWERS_JSON)
    lines, mended = find_problems(answers)
    if lines:
        lines.append("Nothing was written (the traceback below is cookiecutter's way to stop). Paste this instead:")
        lines.append(f"    {again(answers, mended)}")
    elif taken := overwritten(answers["__package_name"]):
        lines.append(f"error: {os.getcwd()} already has {', '.join(taken)}: your changes there would be lost.")
        lines.append(
            "Nothing was written (the traceback below is cookiecutter's way to stop). Take another --output-dir, or"
        )
        lines.append('move these away. How to update a project says the README of the template, "Update a project".')
    else:
        return 0
    print("", *lines, "", sep="\n", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
