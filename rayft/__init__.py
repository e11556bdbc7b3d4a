"""rayft finds product defects in customer reviews, at any scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayft.score.scorer import Scorer

__version__ = "0.1.0"
__all__ = ["Scorer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `Scorer` on first use: `import rayft` alone stays quick."""
    if name == "Scorer":
        from rayft.score.scorer import Scorer

        return Scorer
    raise AttributeError(f"module 'rayft' has no attribute {name!r}")
