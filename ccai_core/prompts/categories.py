"""What kind of question a prompt is, for those whose source does not say.

What a prompt already says of itself wins, then its hazard, then what its source holds, then its
words: a small lexicon of cues, scored. Cues are rough; they decide shares of a mix, no grade.

    prompts = with_categories(prompts)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import get_args

from ccai_core.types import Category, Prompt

CATEGORIES: tuple[Category, ...] = get_args(Category)

# By the beginning of a source's name. First turns of these HH sets were written to get a harmful
# answer, so they count as hazards, without a code; MT-Bench and the helpful ones ask for help.
SOURCE_CATEGORIES: Mapping[str, Category] = {
    "ailuminate": "hazard",
    "adversarial": "hazard",
    "hh-rlhf/harmless": "hazard",
    "hh-rlhf/red-team": "hazard",
    "hh-rlhf/helpful": "practical_advice",
    "mt-bench": "practical_advice",
}

# A cue is (points, words). The question itself, the last sentence, counts double: a story may
# touch on anything, what is asked of the model is in the end.
_CUES: Mapping[Category, tuple[tuple[float, str], ...]] = {
    "ethical_dilemma": (
        (2, r"(?:moral|ethic|unethical|immoral)\w*"),
        (2, r"(?:is|was|would|were|am|are|be|been)\b[^.?!]{0,40}?\b(?:wrong|right|fair|unfair|cruel"
            r"|terrible|selfish|acceptable|justified|dishonest|a mistake|a good (?:man|person)"
            r"|an? (?:hypocrite|fraud|traitor|coward|liar))"),
        (1.5, r"(?:lie|lies|lied|lying|cheat\w*|steal\w*|betray\w*|blackmail\w*|conceal\w*"
              r"|bribe\w*|honest\w*|dishonest\w*|keep (?:my|our|a) (?:word|promise|secret))"),
        (1.5, r"(?:promised?|owe[ds]?|dut(?:y|ies)|obligat\w*|loyal\w*|conscience|guilt\w*"
              r"|blame\w*|at fault|(?:his|her|my|our) fault|faithful|responsible)"),
        (1.5, r"(?:do|may|must|should|can|would) (?:i|we|she|he|they) (?:\w+ ){0,2}?(?:tell|report"
              r"|let|give|pay|hire|fire|forgive|refuse|allow|help|invite|expose|hide|admit|send"
              r"|take|speak|say|switch|owe|listen|choose)"),
        (1, r"(?:should|ought|must|may i|am i allowed|are we allowed|do i have to|am i bound"
            r"|whose|whom|who is right|deserve\w*|how should we decide|difference to anyone)"),
        (1, r"(?:rather than|at the expense|at the cost|torn between|choose|choice between|fair"
            r"|unfair|secrets?|harm|harms|harmed|sacrific\w*|trolley)"),
        (1, r"(?:or|and) (?:do|am|is|should) (?:i|we|it|that)\b"),
    ),
    "philosophical": (
        (2, r"(?:meaning|purpose) (?:of|in) (?:\w+ )?(?:life|existence|death|suffering|it all)"),
        (2, r"(?:free will|conscious\w*|consciousness|existence|metaphysic\w*|epistem\w*"
            r"|philosoph\w*|nihilis\w*|stoic\w*|buddhis\w*|enlighten\w*|mortality|determinism"
            r"|humanity|meditat\w*)"),
        (2, r"(?:who|what) am i\b|really me\b|what i am\b|what you are\b"
            r"|what (?:does it mean|is it) to be\b|(?:the|my) (?:true |real )?self\b"),
        (2, r"such a thing as\b|what (?:on earth )?is (?:a|an)\b|is there (?:any|a real)"
            r"|(?:the same|a different) (?:person|thing|one|man|woman|river)\b|what is left of\b"),
        (1.5, r"(?:does|do|did|could|can) [^.?!]{0,40}?\b(?:exist|mean anything|matter|count"
              r"|belong|change anything|know anything)\b"),
        (1.5, r"(?:what is|what are|what makes) (?:the )?(?:nature of |point of )?(?:love|truth"
              r"|justice|beauty|happiness|time|reality|knowledge|evil|good|freedom|art|wisdom"
              r"|the mind|a person|real|consciousness)\b"),
        (1.5, r"(?:is|are) (?:\w+ ){0,5}?(?:still|really|ever|only|just|merely|nothing but)"
              r" (?:\w+ )?(?:a|an|the|me|my|real|true|art|mine|illusions?|possible|another)\b"),
        (1.5, r"(?:which|who) (?:one )?(?:of (?:us|them|the two) )?(?:is|was|were) (?:the )?"
              r"(?:real|true)"),
        (1, r"(?:meaning|identity|truth|reality|real|certain(?:ty)?|fate|destiny|eternal|infinite"
            r"|soul|god|gods|heaven|universe|nature of|death|thoughts?|illusion|belie(?:f|fs|ve)"
            r"|awareness|meaningless|point of|mirror|true|existed?|for ever|forever)"),
        (0.5, r"(?:why (?:do|does|should|is|are)|how (?:can|could) (?:a|an|anyone|i possibly)"
              r"|is it true|is that true|prove[ns]?)"),
    ),
    "practical_advice": (
        (2, r"how (?:do|can|could|should|would|to|long|often|much|many)\b"),
        (2, r"(?:what|which|where|when) (?:\w+ ){0,3}?(?:should|can|could|do|would|shall|is the"
              r" best|are the best) (?:i|we|you)?\b"),
        (1.5, r"(?:write|draft|compose|edit|translate|calculate|implement|create|design|list|plan"
              r"|summari[sz]e|describe|explain|recommend|suggest|extract|evaluate|solve|find|give)"
              r" (?:me |us |a |an |the |some |two |three |five |this )"),
        (1, r"(?:tips?|advice|steps?|recipe|schedule|budget|routine|techniques?|instructions?"
            r"|recommend\w*|caption|best way|which app|help me|can you help|wording|words? for)"),
        (3, r"\A(?:please |now |could you |can you |help me )*(?:write|draft|compose|craft|edit"
            r"|translate|calculate|implement|create|design|list|summari[sz]e|describe|explain"
            r"|analy[sz]e|identify|extract|evaluate|solve|develop|suggest|read|given|pretend|act"
            r"|imagine|suppose|assume|take on|embrace|embody)\b"),
        (1, r"should i (?:buy|sell|press|try|look|start|stop|go|end|marry|move|book|order|call)\b"),
    ),
}  # fmt: skip
_PATTERNS = {
    category: tuple(
        (points, re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)) for points, words in cues
    )
    for category, cues in _CUES.items()
}
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")
# Advice is what people ask a model for most; little must not tell otherwise.
_PRIOR: Mapping[Category, float] = {"practical_advice": 1.0}
# Enough to tell what is asked; a pasted document says nothing of it and takes long to search.
_MOST_CHARACTERS = 2_000


def with_categories(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Return the prompts, each with a category; one that has one keeps it."""
    return [
        prompt if prompt.category else prompt.model_copy(update={"category": category_of(prompt)})
        for prompt in prompts
    ]


def category_of(prompt: Prompt) -> Category:
    """Return what kind of question a prompt is."""
    if prompt.category:
        return prompt.category
    if prompt.hazard:
        return "hazard"
    for beginning, category in SOURCE_CATEGORIES.items():
        if prompt.source.startswith(beginning):
            return category
    return category_of_words(prompt.text)


def category_of_words(text: str) -> Category:
    """Tell the kind of a question by its words; practical advice where nothing points elsewhere."""
    points = cue_points(text)
    # The first of the greatest.
    order: tuple[Category, ...] = ("practical_advice", "ethical_dilemma", "philosophical")
    return max(order, key=lambda category: points[category])


def cue_points(text: str) -> dict[Category, float]:
    """Score the text's cues for each kind of question; those of the last sentence twice."""
    text = text[-_MOST_CHARACTERS:].strip()
    last = _SENTENCE_END.split(text)[-1]
    return {
        category: _PRIOR.get(category, 0.0)
        + sum(
            points * (bool(pattern.search(text)) + bool(pattern.search(last)))
            for points, pattern in patterns
        )
        for category, patterns in _PATTERNS.items()
    }
