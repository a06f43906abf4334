"""Names of output folders: a folder that is named like a file of some format would be taken for one."""

from pathlib import Path

from lensmith.errors import OutputError

FILE_ENDINGS = frozenset((
    ".htm", ".html", ".md", ".pdf", ".docx", ".ipynb", ".txt", ".log", ".csv", ".tsv", ".xls", ".xlsx", ".ods",
    ".parquet", ".feather", ".arrow", ".sqlite", ".db", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml",
    ".toml", ".ini", ".conf", ".cfg", ".service", ".env", ".npy", ".npz", ".h5", ".hdf5", ".mat", ".png", ".jpg",
    ".jpeg", ".webp", ".svg", ".gif", ".tif", ".tiff", ".bmp", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz",
    ".zst", ".7z", ".rar", ".whl", ".onnx", ".pt", ".pt2", ".pth", ".ckpt", ".safetensors", ".bin", ".pkl",
    ".pickle", ".joblib", ".pb", ".tflite", ".keras", ".mlmodel", ".mlpackage", ".engine", ".plan",
    ".torchscript", ".ts", ".ptl", ".pte", ".mar", ".msgpack",
))  # fmt: skip
"""Endings of file names in lower case. What follows another dot (`flowers-v1.5`) may be part of a folder's name."""


def require_folder_name(path: Path, holds: str) -> None:
    """Refuse the name of a file for a new folder; a folder that exists keeps its name.

    Args:
        path: path of the folder.
        holds: what the folder is for, as `the report and its JSON`.

    Raises:
        OutputError: the path ends like a file of some format.
    """
    if path.suffix.lower() in FILE_ENDINGS and not path.is_dir():
        raise OutputError(
            f"A folder was expected for {holds}.",
            f"{path} arrived, which is named like a file.",
            f"Name a folder, such as {path.with_name(path.name.partition('.')[0])}.",
        )
