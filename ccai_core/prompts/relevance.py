"""How much a prompt calls for the contemplative principles: by its hazard, and by its words.

Most prompts with a hazard are best answered by declining, whatever the principle; for training,
those are kept for which the principles have more to say.

    relevant = filter_contemplative_relevance(prompts)
    relevance_report(prompts)["ssh"]          # Relevance(prompts=100, relevant=45)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from ccai_core.config import Config
from ccai_core.types import Prompt

# Hazards in which a wise answer has more to do than to decline: somebody suffers, sides are taken,
# or a person decides in a hurry. Each names the principle that it calls for most.
RELEVANT_HAZARDS: Mapping[str, str] = {
    "ssh": "boundless_care",
    "hte": "non_duality",
    "spc": "mindfulness",
    "vcr": "boundless_care",
    "prv": "non_duality",
    "dfm": "mindfulness",
}
THRESHOLD = 1.5
NO_HAZARD = "none"

# A cue is the beginning of a word. English; French; and Hindi and Chinese, which `re` cannot cut
# into words, so that theirs stand anywhere.
_CUES: Mapping[str, tuple[str, str]] = {
    "emptiness": (
        r"always|never|must|only way|truth|proof|certain|identity|destin|meant to"
        r"|toujours|jamais|vérité|preuve|identité|certitude",
        r"हमेशा|कभी नहीं|सच|सत्य|पहचान|किस्मत|总是|从不|永远|必须|真理|证明|身份|命运",
    ),
    "non_duality": (
        r"they|those people|enem|versus|against|race|religio|immigrant|gender|group"
        r"|ces gens|ennemi|contre|migrant|étranger|musulman|juif|noirs",
        r"दुश्मन|विरुद्ध|खिलाफ|धर्म|जाति|वे लोग|समुदाय|他们|那些人|敌人|反对|种族|宗教|移民|性别|群体",
    ),
    "boundless_care": (
        r"suffer|hurt|pain|child|kid|animal|alone|die|dying|grie|help|family|elder"
        r"|souffr|bless|douleur|enfant|seule?\b|mourir|mort|deuil|aide|famille|âgé",
        r"दर्द|पीड़ा|बच्च|जानवर|अकेल|मर|मदद|परिवार|बुज़ुर्ग|बुजुर्ग|痛苦|受苦|伤害|孩子|动物|孤独|死|帮助|家人|老人",
    ),
    "mindfulness": (
        r"angry|anger|revenge|hate|tired|stress|panic|urge|right now|cannot stop|drunk"
        r"|colère|veng|déteste|haine|fatigu|paniqu|maintenant|ivre|énerv",
        r"गुस्स|क्रोध|बदल[ाे] ले|नफरत|नफ़रत|थक|तनाव|घबरा|अभी"
        r"|愤怒|生气|报复|恨|疲惫|压力|恐慌|立刻|忍不住",
    ),
}
# What the questions are like that the principles are for: somebody among others, moved, who asks
# what is right. They tell prompts without a hazard apart; those with one have it.
_SITUATIONS: Mapping[str, tuple[str, str]] = {
    "judgement": (
        r"should (?:i|we|he|she|they|one|a|my|the)\b|ought|am i |owe|who (?:is|was) right|who am i"
        r"|is (?:it|that|this|he|she) (?:\w+ )?(?:wrong|right|ok|fair|cruel|selfish|true|real)"
        r"|worth|matters?\b|meaning|really\b|right thing|whose|what do i (?:do|say)"
        r"|dois-je|devrais|ai-je (?:tort|raison)|est-ce (?:mal|juste|vrai)|vaut",
        r"चाहिए|सही|गलत|应该|该不该|对吗|错了|值得|意义",
    ),
    "people": (
        r"my (?:\w+ )?(?:mother|mum|mom|father|dad|parent|sister|brother|son|daughter|wife|husband"
        r"|partner|girlfriend|boyfriend|friend|neighbou?r|boss|manager|colleague|team|family|dog"
        r"|cat|child|kid|aunt|uncle|cousin|grand|roommate|flatmate|student|teacher|patient|client"
        r"|ex)\w*|stranger|people|we\b|us\b|others"
        r"|m(?:on|a|es) (?:\w+ )?(?:mère|père|sœur|frère|fils|fille|ami|mari|femme|voisin|chef)",
        r"माँ|मां|पिता|भाई|बहन|बेट|दोस्त|पड़ोसी|妈妈|母亲|父亲|爸爸|哥哥|姐姐|弟弟|妹妹|朋友|邻居|同事|老板",
    ),
    "feeling": (
        r"feel|felt|afraid|asham|guilt|jealous|proud|lonely|forgiv|resent|regret|embarrass|worr"
        r"|upset|furious|shame|bitter|unfair|offend|insult|blame|fault|cry|cried|tears|hurt|enough"
        r"|myself|love|fear|sens\b|peur|honte|coupable|jalou|pardon|regret|aime",
        r"महसूस|डर|शर्म|दोषी|माफ|प्यार|感到|害怕|羞愧|内疚|嫉妒|原谅|后悔|爱",
    ),
}


def _patterns(words: Mapping[str, tuple[str, str]]) -> dict[str, re.Pattern[str]]:
    return {
        kind: re.compile(rf"\b(?:{beginning})|{anywhere}", re.IGNORECASE)
        for kind, (beginning, anywhere) in words.items()
    }


_CUE_PATTERNS = _patterns(_CUES)
_SITUATION_PATTERNS = _patterns(_SITUATIONS)


class Relevance(Config):
    """How many prompts of a hazard call for the principles."""

    prompts: int = Field(ge=0, description="Prompts with this hazard.")
    relevant: int = Field(ge=0, description="Of these, prompts that call for the principles.")


def contemplative_relevance(prompt: Prompt) -> float:
    """Score how much a prompt calls for the principles.

    With a hazard: 1 if it is a relevant one, and 0.5 a kind of cue, of four. Without: 0.75 a kind
    of cue or of situation, of seven, and 1.5 if it was written for a principle.
    """
    cues = _kinds(prompt.text, _CUE_PATTERNS)
    if prompt.hazard:
        return (prompt.hazard in RELEVANT_HAZARDS) + 0.5 * cues
    situations = _kinds(prompt.text, _SITUATION_PATTERNS)
    return 1.5 * (prompt.principle is not None) + 0.75 * (cues + situations)


def _kinds(text: str, patterns: Mapping[str, re.Pattern[str]]) -> int:
    return sum(bool(pattern.search(text)) for pattern in patterns.values())


def calls_for_principles(prompt: Prompt, threshold: float = THRESHOLD) -> bool:
    """Whether the principles have something to say to a prompt."""
    return contemplative_relevance(prompt) >= threshold


def filter_contemplative_relevance(
    prompts: Iterable[Prompt], threshold: float = THRESHOLD
) -> list[Prompt]:
    """Keep the prompts whose relevance reaches `threshold`, in their order."""
    return [prompt for prompt in prompts if calls_for_principles(prompt, threshold)]


def relevance_report(
    prompts: Sequence[Prompt], threshold: float = THRESHOLD
) -> dict[str, Relevance]:
    """Count relevant prompts by hazard, in order of its code; 'none' stands for no hazard."""
    hazards = sorted({prompt.hazard or NO_HAZARD for prompt in prompts})
    return {
        hazard: Relevance(
            prompts=sum((p.hazard or NO_HAZARD) == hazard for p in prompts),
            relevant=sum(
                (p.hazard or NO_HAZARD) == hazard and calls_for_principles(p, threshold)
                for p in prompts
            ),
        )
        for hazard in hazards
    }
