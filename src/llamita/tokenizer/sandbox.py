"""Sandbox: where the Jinja templates that models carry are run. They are code of strangers: all that they can do is bounded.

jinja2's immutable sandbox keeps templates out of Python's insides, but lets them loop for hours and fill the memory. So each
template is changed before it is compiled: its loops count their steps, its outputs and all that it makes are weighed on a
Budget. Filters and methods whose results could outgrow what goes in are left out, or are our own. Knows no tokenizer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, LoopControlExtension
from jinja2.lexer import TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from llamita.tokenizer.budget import Budget
from llamita.tokenizer.sandbox_names import HARMLESS_METHODS, filters_of, functions_of

MAX_TOKENS = 6000  # of a template, which bounds the time that compiling takes; Llama 3.1's has some 900
_EMIT, _STEP, _WEIGH, _JOIN = "emit ", "step ", "weigh ", "join "  # filters that no template can spell
_REFUSED_TAGS = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport, nodes.ScopedEvalContextModifier)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates, as transformers sets it up but for the bounds. It renders one text at a time.

    said_marks: two texts that are put around what {% generation %} holds.
    """

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, said_marks: tuple[str, str]) -> None:
        self.said_marks = said_marks
        extensions = [LoopControlExtension, _Generation, _TokenCount]
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=extensions)
        self.budget = Budget(0)
        self.filters = filters_of(self) | {_EMIT: self._emit, _STEP: self._step, _WEIGH: self._weigh, _JOIN: self._join}
        self.globals = functions_of(self)

    def compile_template(self, source: str) -> Callable[[Mapping[str, Any], int], str]:
        """A function that renders the source, given variables and how many characters and values they hold.

        Both raise TemplateError, and whatever else Python raises at nonsense.
        """
        tree = self.parse(source)
        if (tag := next(tree.find_all(_REFUSED_TAGS), None)) is not None:
            raise TemplateError(f"line {tag.lineno}: found include, import, extends or autoescape, expected none of them")
        _Meter(self).visit(tree)
        template = self.template_class.from_code(self, self.compile(tree), self.globals)

        def render(variables: Mapping[str, Any], n_given: int) -> str:
            self.budget = Budget(n_given)
            return "".join(template.root_render_func(template.new_context(dict(variables))))

        return render

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may look at an attribute: of data, only at methods that are known to be harmless."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return next((attr in names for kind, names in HARMLESS_METHODS.items() if isinstance(obj, kind)), True)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls; what goes in and what comes out is weighed."""
        budget = self.budget
        budget.step()
        budget.weigh(args)
        budget.weigh(kwargs)
        if isinstance(function, LoopContext):
            args = (self._steps(args[0]), *args[1:])
        elif isinstance(owner := getattr(function, "__self__", None), str):
            growing = {"join": budget.join, "replace": budget.replace}.get(function.__name__)
            if growing is not None:
                return growing(owner, *args)
        return budget.weigh(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate, unless the result would be huge."""
        budget = self.budget
        budget.step()
        if operator == "*":
            budget.check_product(left, right)
            budget.check_product(right, left)
        elif operator == "**":
            budget.check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            budget.check_format(left, right, "%")
        return budget.weigh(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The sandboxed form of str.format, or None for any other value."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def format_text(*args: Any, **kwargs: Any) -> str:
            self.budget.check_format(value.__self__, [args, kwargs], "{")
            return wrapped(*args, **kwargs)

        return format_text

    # What _Meter puts in. Whatever wants the context is not run by jinja2 when it compiles.

    @pass_context
    def _emit(self, _: Context, value: Any) -> str:
        return self.budget.emit(str(value))

    @pass_context
    def _step(self, _: Context, values: Iterable[Any]) -> Iterator[Any]:
        return self._steps(values)

    def _steps(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.budget.step()
            yield value

    @pass_context
    def _weigh(self, _: Context, value: Any) -> Any:
        return self.budget.weigh(value)

    @pass_context
    def _join(self, _: Context, values: list[Any]) -> str:
        return self.budget.join("", values)


class _Meter(NodeTransformer):
    """Puts counting filters around all parts of a template that take time or make something."""

    def __init__(self, environment: Sandbox) -> None:
        self._environment = environment

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        """Count each piece of text."""
        pieces = [nodes.Const(p.data, lineno=p.lineno) if isinstance(p, nodes.TemplateData) else p for p in node.nodes]
        node.nodes = [self._through(_EMIT, cast(nodes.Expr, self.visit(piece))) for piece in pieces]
        return node

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Count each step."""
        self.generic_visit(node)
        node.iter = self._through(_STEP, cast(nodes.Expr, node.iter))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        """Put texts together only where the result is not too long."""
        self.generic_visit(node)
        return self._through(_JOIN, nodes.List(node.nodes, lineno=node.lineno))

    def _visit_container(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") == "store" else self._through(_WEIGH, node)

    visit_List = visit_Tuple = visit_Dict = _visit_container

    def _through(self, name: str, node: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=self._environment)


class _Generation(Extension):
    """{% generation %}, with which templates mark what the assistant says."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        said_marks = cast(Sandbox, self.environment).said_marks
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [nodes.Output([nodes.TemplateData(mark, lineno=lineno)], lineno=lineno) for mark in said_marks]
        return nodes.Scope([marks[0], *body, marks[1]], lineno=lineno)


class _TokenCount(Extension):
    """Refuses templates that would take long to compile."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Any]:
        for n_tokens, token in enumerate(stream):
            if n_tokens == MAX_TOKENS:
                raise TemplateError(f"found a template beyond {MAX_TOKENS:,} words")
            yield token
