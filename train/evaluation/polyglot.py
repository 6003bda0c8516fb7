"""KoBEST's prompts as the tables of Polyglot-Ko have them.

Today's harness differs in one: before COPA's connector it writes two blanks. The others are written out, too,
so that a later harness does not change what this name stands for.
Source: EleutherAI/lm-evaluation-harness, branch polyglot, lm_eval/tasks/kobest.py.
"""

from collections.abc import Mapping
from typing import Any, Final

NO_YES: Final = ("아니오", "예")

PROMPTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "kobest_boolq": {
        "doc_to_text": "{{paragraph}} 질문: {{question}} 답변: ",
        "doc_to_choice": list(NO_YES),
    },
    "kobest_copa": {
        "doc_to_text": "{{premise}} {{ {'원인': '왜냐하면', '결과': '그래서'}[question.strip()] }}",
        "doc_to_choice": "{{[alternative_1, alternative_2]}}",
    },
    "kobest_hellaswag": {
        "doc_to_text": "문장: {{context}}",
        "doc_to_choice": "{{[ending_1, ending_2, ending_3, ending_4]}}",
    },
    "kobest_sentineg": {
        "doc_to_text": "문장: {{sentence}} 긍부정:",
        "doc_to_choice": ["부정", "긍정"],
    },
    "kobest_wic": {
        "doc_to_text": "문장1: {{context_1}} 문장2: {{context_2}} 두 문장에서 {{word}}가 같은 뜻으로 쓰였나?",
        "doc_to_choice": list(NO_YES),
    },
}
"""By the harness's name of the task: what of its configuration is otherwise."""
