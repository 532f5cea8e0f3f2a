"""What clients ask for: one class for each body of a POST, with OpenAI's names, defaults and bounds.

The extras that other servers have (top_k, min_p, repetition_penalty, ignore_eos, ...) are here too. What would change the text
and is not done here is refused; every other unknown field is ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field

from llamita.serve.fields import WHOLE, Body, Inputs, Nullable, Prompts, Stops, Unsupported
from llamita.serve.limits import MAX_ALTERNATIVES, MAX_BIASES, MAX_CHOICES, MAX_MESSAGES, MAX_TOOLS
from llamita.serve.messages import Message, NamedFunction, NamedTool, Tool

INT32 = 1 << 31
Bias = Annotated[float, Field(ge=-100, le=100)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
TokenCount = Annotated[int, Field(ge=0, lt=INT32), WHOLE]
Alternatives = Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES), WHOLE]


class StreamOptions(Body):
    """What a stream tells besides text."""

    include_usage: Nullable[bool] = False


class JsonSchemaFormat(Body):
    """A JSON schema that the answer must satisfy."""

    name: Nullable[str] = ""
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class PlainFormat(Body):
    """Any text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(Body):
    """JSON that satisfies a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchemaFormat


ResponseFormat = Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")]


class GenerationRequest(Body):
    """What both kinds of completion have in common."""

    model: Nullable[str] = ""
    max_tokens: Nullable[TokenCount | None] = None
    n: Nullable[Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE]] = 1
    seed: Nullable[Annotated[int, WHOLE] | None] = None
    temperature: Nullable[Annotated[float, Field(ge=0, le=2)]] = 1.0
    top_p: Nullable[Share] = 1.0
    top_k: Nullable[Annotated[int, Field(ge=-1, lt=INT32), WHOLE]] = 0
    min_p: Nullable[Share] = 0.0
    presence_penalty: Nullable[Penalty] = 0.0
    frequency_penalty: Nullable[Penalty] = 0.0
    repetition_penalty: Nullable[Annotated[float, Field(gt=0, le=100)]] = Field(
        1.0, validation_alias=AliasChoices("repetition_penalty", "repeat_penalty")
    )
    logit_bias: Nullable[Annotated[dict[str, Bias], Field(max_length=MAX_BIASES)]] = Field(default_factory=dict)
    stop: Nullable[Stops] = Field(default_factory=list)
    stream: Nullable[bool] = False
    stream_options: Nullable[StreamOptions] = Field(default_factory=StreamOptions)
    ignore_eos: Nullable[bool] = False
    response_format: Nullable[ResponseFormat | None] = None
    # how other servers ask for a form of the answer: ignoring them would answer something else than was asked for
    grammar: Annotated[None, Unsupported("response_format")] = None
    guided_json: Annotated[None, Unsupported("response_format")] = None
    guided_regex: Annotated[None, Unsupported()] = None
    guided_choice: Annotated[None, Unsupported()] = None
    guided_grammar: Annotated[None, Unsupported()] = None
    structured_outputs: Annotated[None, Unsupported("response_format")] = None

    @property
    def prescribes_form(self) -> bool:
        """Whether the answer must be JSON."""
        return self.response_format is not None and self.response_format.type != "text"


class CompletionRequest(GenerationRequest):
    """POST /v1/completions."""

    prompt: Nullable[Prompts] = Field(default_factory=lambda: [""])
    max_tokens: Nullable[TokenCount | None] = Field(None, description="16 where the request does not say.")
    echo: Nullable[bool] = False
    logprobs: Nullable[Alternatives | None] = None
    best_of: Nullable[Annotated[int, Field(ge=0, le=20), WHOLE]] = Field(0, description="0 is the same as n.")
    suffix: Nullable[Literal[""]] = Field("", description="Not supported: the model only reads forwards.")


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Nullable[TokenCount | None] = None
    logprobs: Nullable[bool] = False
    top_logprobs: Nullable[Alternatives] = 0
    tools: Nullable[Annotated[list[Tool], Field(max_length=MAX_TOOLS)]] = Field(default_factory=list)
    tool_choice: Nullable[Literal["none", "auto", "required"] | NamedTool | None] = None
    functions: Nullable[list[dict[str, Any]]] = Field(
        default_factory=list, description="Not supported, but with function_call none; use tools."
    )
    function_call: Nullable[Literal["none", "auto"] | NamedFunction | None] = Field(
        None, description="Not supported, but for none and auto; use tool_choice."
    )
    add_generation_prompt: Nullable[bool] = True
    answer_ids: Nullable[list[Annotated[int, Field(ge=0), WHOLE]]] = Field(
        default_factory=list, description="Tokens that the answer begins with; what comes back goes on behind them."
    )
    chat_template_kwargs: Nullable[dict[str, Any]] = Field(default_factory=dict)


class EmbeddingRequest(Body):
    """POST /v1/embeddings."""

    model: Nullable[str] = ""
    input: Inputs
    encoding_format: Nullable[Literal["float", "base64"]] = "float"
    dimensions: Nullable[Annotated[int, Field(ge=1, lt=INT32), WHOLE] | None] = None


class TokenizeRequest(Body):
    """POST /tokenize: a text (vLLM calls it prompt, llama.cpp content), or the messages of a chat."""

    prompt: Nullable[str | None] = Field(None, validation_alias=AliasChoices("prompt", "content"))
    messages: Nullable[Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None] = None
    add_special_tokens: Nullable[bool] = Field(True, validation_alias=AliasChoices("add_special_tokens", "add_special"))
    add_generation_prompt: Nullable[bool] = True
    return_token_strs: Nullable[bool] = Field(False, validation_alias=AliasChoices("return_token_strs", "with_pieces"))


class DetokenizeRequest(Body):
    """POST /detokenize."""

    tokens: list[Annotated[int, Field(ge=0), WHOLE]]
