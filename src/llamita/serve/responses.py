"""What clients get: OpenAI's objects, field by field. They are the schema of /docs; answers are built as plain dictionaries."""

from typing import Any, Literal

from pydantic import BaseModel


class CachedTokens(BaseModel):
    """How much of the prompt was known already, because an earlier text began alike."""

    cached_tokens: int


class UsageBody(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class CompletionLogprobs(BaseModel):
    """Parallel lists, one entry a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One text."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class CompletionResponse(BaseModel):
    """A whole completion, and also each event of a stream (there usage is null or missing but in the last)."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBody | None = None


class ChatToken(BaseModel):
    """A token that could stand in a place."""

    id: int
    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(ChatToken):
    """A token of the answer, and the likeliest in its place."""

    top_logprobs: list[ChatToken]


class ChatLogprobs(BaseModel):
    """One entry a token."""

    content: list[ChatTokenLogprob]
    refusal: None = None


class CalledFunctionBody(BaseModel):
    """A call that the model makes; arguments are JSON in a string."""

    name: str
    arguments: str


class ToolCallBody(BaseModel):
    """One tool call of an answer."""

    id: str
    type: Literal["function"]
    function: CalledFunctionBody


class ChatMessage(BaseModel):
    """The answer of the model."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallBody] | None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatResponse(BaseModel):
    """A whole chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageBody


class ChatDelta(BaseModel):
    """What is new of an answer: its role at first, then text."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChunkChoice(BaseModel):
    """What is new of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: UsageBody | None = None


class ModelBody(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    template: str
    stop_ids: list[int]


class ModelList(BaseModel):
    """All models that are served: one."""

    object: Literal["list"]
    data: list[ModelBody]


class Embedding(BaseModel):
    """The vector of one text: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """The vectors of all texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class TokenizeResponse(BaseModel):
    """The ids of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeResponse(BaseModel):
    """The text of ids: in vLLM's field and in llama.cpp's."""

    prompt: str
    content: str


class TokenizerInfo(BaseModel):
    """What lm-eval asks of a tokenizer that it does not have."""

    tokenizer_class: str
    vocab_size: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None


class Health(BaseModel):
    """Whether requests are served."""

    status: Literal["ok", "loading", "draining", "failed"]
