"""The works that a paper cites: in the text by name and year, at the end in full, if cited.

cite = Citations()
text = f"as in {cite('bai2022')}"         # as in [Bai et al., 2022](#ref-bai2022)
cite.references()
"""

from __future__ import annotations

from typing import NamedTuple


class Work(NamedTuple):
    """One work."""

    short: str
    authors: str
    year: int
    title: str
    where: str
    address: str = ""


WORKS: dict[str, Work] = {
    "laukkonen2025": Work(
        "Laukkonen et al.",
        "Laukkonen, R. E., Inglis, F., Chandaria, S., Sandved-Smith, L., Lopez-Sola, E., Hohwy, "
        "J., Gold, J., & Elwood, A.",
        2025, "Contemplative Artificial Intelligence", "arXiv 2504.15125",
        "https://arxiv.org/abs/2504.15125",
    ),
    "bai2022": Work(
        "Bai et al.",
        "Bai, Y., Kadavath, S., Kundu, S., Askell, A., Kernion, J., et al.",
        2022, "Constitutional AI: Harmlessness from AI Feedback", "arXiv 2212.08073",
        "https://arxiv.org/abs/2212.08073",
    ),
    "rafailov2023": Work(
        "Rafailov et al.",
        "Rafailov, R., Sharma, A., Mitchell, E., Ermon, S., Manning, C. D., & Finn, C.",
        2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        "Advances in Neural Information Processing Systems; arXiv 2305.18290",
        "https://arxiv.org/abs/2305.18290",
    ),
    "hu2021": Work(
        "Hu et al.",
        "Hu, E. J., Shen, Y., Wallis, P., Allen-Zhu, Z., Li, Y., Wang, S., Wang, L., & Chen, W.",
        2021, "LoRA: Low-Rank Adaptation of Large Language Models", "arXiv 2106.09685",
        "https://arxiv.org/abs/2106.09685",
    ),
    "ghosh2025": Work(
        "Ghosh et al.", "Ghosh, S., Frase, H., Williams, A., Luger, S., Röttger, P., et al.",
        2025, "AILuminate: Introducing v1.0 of the AI Risk and Reliability Benchmark from "
        "MLCommons", "arXiv 2503.05731", "https://arxiv.org/abs/2503.05731",
    ),
    "zheng2023": Work(
        "Zheng et al.", "Zheng, L., Chiang, W.-L., Sheng, Y., Zhuang, S., Wu, Z., et al.",
        2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", "arXiv 2306.05685",
        "https://arxiv.org/abs/2306.05685",
    ),
    "zhao2021": Work(
        "Zhao et al.", "Zhao, T. Z., Wallace, E., Feng, S., Klein, D., & Singh, S.",
        2021, "Calibrate Before Use: Improving Few-Shot Performance of Language Models",
        "arXiv 2102.09690", "https://arxiv.org/abs/2102.09690",
    ),
    "clopper1934": Work(
        "Clopper and Pearson", "Clopper, C. J., & Pearson, E. S.", 1934,
        "The use of confidence or fiducial limits illustrated in the case of the binomial",
        "Biometrika 26(4), 404–413",
    ),
    "bonett2012": Work(
        "Bonett and Price", "Bonett, D. G., & Price, R. M.", 2012,
        "Adjusted Wald confidence interval for a difference of binomial proportions based on "
        "paired data", "Journal of Educational and Behavioral Statistics 37(4), 479–488",
    ),
    "mcnemar1947": Work(
        "McNemar", "McNemar, Q.", 1947,
        "Note on the sampling error of the difference between correlated proportions or "
        "percentages", "Psychometrika 12(2), 153–157",
    ),
    "efron1979": Work(
        "Efron", "Efron, B.", 1979, "Bootstrap methods: another look at the jackknife",
        "The Annals of Statistics 7(1), 1–26",
    ),
    "hesterberg2015": Work(
        "Hesterberg", "Hesterberg, T. C.", 2015, "What teachers should know about the bootstrap: "
        "resampling in the undergraduate statistics curriculum",
        "The American Statistician 69(4), 371–386",
    ),
    "holm1979": Work(
        "Holm", "Holm, S.", 1979, "A simple sequentially rejective multiple test procedure",
        "Scandinavian Journal of Statistics 6(2), 65–70",
    ),
    "krippendorff2019": Work(
        "Krippendorff", "Krippendorff, K.", 2019,
        "Content Analysis: An Introduction to Its Methodology (4th ed.)", "SAGE",
    ),
}  # fmt: skip


class Citations:
    """Which works a text cites."""

    def __init__(self) -> None:
        self._cited: dict[str, Work] = {}

    def __call__(self, key: str) -> str:
        """Return a citation as a link to the list of references."""
        work = self._cited.setdefault(key, WORKS[key])
        return f"[{work.short}, {work.year}](#ref-{key})"

    def references(self) -> str:
        """Return the works that were cited, by author."""
        order = sorted(self._cited.items(), key=lambda item: (item[1].authors, item[1].year))
        return "\n".join(f'- <span id="ref-{key}"></span>{_entry(work)}' for key, work in order)


def _entry(work: Work) -> str:
    address = f" <{work.address}>" if work.address else ""
    return f"{work.authors} ({work.year}). *{work.title}*. {work.where}.{address}"
