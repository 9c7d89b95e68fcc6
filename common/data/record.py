"""The record of prepared data: what was read, what was corrected, and the splits that were made of it."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

from ..files import FileRecord

Example = dict[str, Any]
"""One row of prepared data: a question on a context with its answers, or a text with its label."""


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What `record.json` in a folder of prepared data holds; a run logs it as `data_record.json`."""

    kind: str = "qa"
    """"qa" (questions on contexts), "text" (texts with a label) or "multi-label text" (texts with any number of labels)."""
    labels: tuple[str, ...] = ()
    """Names of the labels of texts, by number."""
    pairs: bool = False
    """Whether texts come in pairs, `text` and `text_pair`."""
    source: str
    """What the data was read from: sample, files, hub, saved, text, aclimdb, sample-texts or mix."""
    name: str
    called: str = ""
    """The name that the user gave the data: its experiment and its registered model have it too. Empty: none."""
    version: str
    """SQuAD's version for questions, v1.1 or v2.0, whose rules they follow; for texts `binary`, `<n> labels` or
    `multi-label`."""
    files: list[FileRecord]
    hub: dict[str, str] = field(default_factory=dict)
    """For data of a hub: its `repository`, `config` and `revision`, and the `splits` that became train and test."""
    mix: list[dict[str, Any]] = field(default_factory=list)
    """The sets that the data was mixed of: `name`, `weight`, and the `fingerprint` of each. Rows name theirs as `origin`."""
    repaired: int | None = None
    """Answers whose place or spelling was corrected; None for texts, like the next two fields."""
    located: int = 0
    """Answers whose place the files do not give, and which were found in their context."""
    ambiguous: int = 0
    """Those of them that stand there several times: the first place that is a whole word was taken."""
    dropped: int | None = None
    """Answers that were not found in their context: they are left out of training and stay in scoring."""
    notes: list[str] | None = None
    """A sentence for each of the first 100 of those."""
    empty_answers: int = 0
    """Answers without text, left out of training."""
    made_ids: int = 0
    made_titles: int = 0
    renamed_ids: int = 0
    """Questions of train that had the id of another question in validation or test."""
    skipped: int = 0
    """Rows that were left out because of a fault; `skipped.json` lists them."""
    seed: int
    validation_share: float
    """Wanted share of validation, 0 to 1, if it was carved out of train."""
    validation_by: str | None = None
    """For questions: "article" or "paragraph" if validation was carved out of train by it, else "given"."""
    test_by: str | None = None
    """What test was carved out of train by ("article", "paragraph" or "text"); None if it was given."""
    counts: dict[str, dict[str, int]]
    """Split → what is counted → how many."""
    label_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Split → label → texts that have it; empty where the labels are negative and positive, which stand in `counts`."""
    validation_paragraphs_also_in_train: int | None = None
    test_paragraphs_also_in_train: int | None = None
    """Paragraphs of test that are in train or validation too."""
    test_texts_also_in_train: int | None = None
    """Texts of test that are in train or validation too."""
    fingerprint: str
    """sha256 over the content of all splits."""
    stored: dict[str, str] = field(default_factory=dict)
    """File of the folder → its sha256."""
    further: dict[str, Any] = field(default_factory=dict)
    """Other keys of the record, written by another release."""

    @property
    def title(self) -> str:
        """What the data is called where people read it."""
        return self.called or self.name

    @property
    def has_unanswerable(self) -> bool:
        """Whether some questions may have no answer, which a model may then give."""
        return self.version == "v2.0"

    def texts_by_label(self, split: str) -> dict[str, int]:
        """Label → texts of a split that have it; empty for questions."""
        counts = self.label_counts.get(split, self.counts.get(split, {}))
        return {name: counts[name] for name in self.labels if name in counts}

    def to_json(self) -> dict[str, Any]:
        """The content of `record.json`: the fields in order, without those that have their default."""
        content = {}
        for each in fields(self):
            value = getattr(self, each.name)
            default = each.default if each.default_factory is MISSING else each.default_factory()
            if each.name != "further" and value != default:
                content[each.name] = list(value) if isinstance(value, tuple) else value
        return content | self.further

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """The record that `to_json` gave; TypeError or KeyError if `content` is not one."""
        if not isinstance(content, Mapping):
            raise TypeError(f"a record is an object, not {type(content).__name__}")
        known = {each.name: each for each in fields(cls) if each.name != "further"}
        for name, each in known.items():
            if name not in content:
                if each.default is MISSING and each.default_factory is MISSING:
                    raise KeyError(name)
            elif (kind := _KINDS.get(name)) and not isinstance(content[name], kind):
                raise TypeError(f"{name} is {content[name]!r}")
        values = {name: content[name] for name in known if name in content}
        if "labels" in values:
            values["labels"] = tuple(values["labels"])
        return cls(**values, further={name: value for name, value in content.items() if name not in known})


_KINDS = {
    **dict.fromkeys(("kind", "source", "name", "version", "fingerprint"), str),
    **dict.fromkeys(("counts", "label_counts", "stored"), dict),
    **dict.fromkeys(("labels", "files"), list),
}
"""Types that other code relies on: a record that was changed by hand must fail when it is read, not later."""
