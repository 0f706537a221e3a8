"""What you trained or taught, as a folder for others: on disk, or on the Hugging Face hub.

A folder holds ``model.safetensors``, which is all that is needed, ``config.json``, which says the
same for other programs to read, and ``README.md``, a card to be completed. Nothing in it is code.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from quickstudy.checkpoint import write_atomically
from quickstudy.extras import need
from quickstudy.plain import to_json

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

__all__ = ["WEIGHTS", "Shareable"]

WEIGHTS = "model.safetensors"
_CARD = """---
library_name: quickstudy
tags:
- meta-learning
- few-shot
---

# {title}

{about}

```python
from {module} import {name}

loaded = {name}.from_pretrained("FOLDER-OR-NAME")
```
"""


class Shareable:
    """`save_pretrained`, `from_pretrained` and `push_to_hub` for a class that can write one file.

    They are called, and lay files out, as those of Hugging Face's libraries.

    Attributes:
        imported_from: the module and the name that a card tells people to import.
    """

    imported_from: tuple[str, str]

    def _write_file(self, path: Path) -> dict[str, Any]:
        """Write everything to one file; returns what there is to know of it, as plain values."""
        raise NotImplementedError

    @classmethod
    def _read_file(cls, path: Path) -> Any:
        """Read what `_write_file` wrote."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write it as a folder, over one of before; a card that is there is left as it is.

        Raises:
            ValueError: it cannot be written; says why.
        """
        folder = Path(folder)
        about = self._write_file(folder / WEIGHTS)
        write_atomically(folder / "config.json", to_json(about, indent=2) + "\n")
        card = folder / "README.md"
        if not card.exists():
            write_atomically(card, self._card(about))

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> Self:
        """What `save_pretrained` wrote.

        Args:
            source: a folder; if there is none of that name, that of a repository on the hub,
                ``"owner/name"``, of which this one file is downloaded.
            revision: of the repository: a branch, a tag or, best, a commit.
            token: of the hub, for a private repository.

        Raises:
            FileNotFoundError: the folder does not hold what is expected.
            ValueError: the file is damaged, or holds something else.
        """
        folder = Path(source)
        if folder.is_dir():
            path = folder / WEIGHTS
            if not path.is_file():
                raise FileNotFoundError(f"{folder} holds no {WEIGHTS}")
        else:
            hub = need("huggingface_hub", "hub")
            download: Any = hub.hf_hub_download
            path = Path(download(os.fspath(source), WEIGHTS, revision=revision, token=token))
        found = cls._read_file(path)
        if not isinstance(found, cls):
            raise ValueError(f"{source} holds a {type(found).__name__}; expected a {cls.__name__}")
        return found

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str = "From quickstudy",
    ) -> "CommitInfo":
        """Upload what `save_pretrained` writes to the hub, as ``"owner/name"``."""
        from tempfile import TemporaryDirectory

        api: Any = need("huggingface_hub", "hub").HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if api.file_exists(repository, "README.md"):
                Path(folder, "README.md").unlink()
            upload: CommitInfo = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=message
            )
        return upload

    def _card(self, about: dict[str, Any]) -> str:
        module, name = self.imported_from
        known = ((key, value) for key, value in about.items() if value not in (None, {}, []))
        lines = "\n".join(f"- {key}: {value}" for key, value in known)
        return _CARD.format(title=type(self).__name__, about=lines, module=module, name=name)
