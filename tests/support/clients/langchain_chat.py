"""LangChain's OpenAI chat model, unchanged: chat, stream, batch, errors. Arguments: base URL, key, model."""

import json
import sys

import openai
from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]

base_url, key, model = sys.argv[1:]
QUESTION = "대한민국의 수도는 어디인가요?"


def chat(**settings: object) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=base_url, model=model, temperature=0, max_retries=0, **{"api_key": key} | settings
    )


refusals = {}
for name, wrong in {"n": chat(n=99), "key": chat(api_key="wrong")}.items():
    try:
        wrong.invoke(QUESTION)
    except openai.APIStatusError as error:
        refusals[name] = [type(error).__name__, error.status_code]
whole = chat().invoke(QUESTION)
print(
    json.dumps(
        {
            "whole": whole.content,
            "usage": whole.usage_metadata,
            "streamed": "".join(str(chunk.content) for chunk in chat().stream(QUESTION)),
            "batch": [answer.content for answer in chat().batch([QUESTION] * 3)],
            "refusals": refusals,
        },
        ensure_ascii=False,
    )
)
