"""Hostile chat templates end at once, touch nothing and make nothing large; honest ones find what transformers gives them."""

import time
from datetime import datetime

import pytest

from llamita.errors import ChatTemplateError
from llamita.tokenizer.jinja_template import JinjaTemplate
from llamita.tokenizer.llama2c import BOS_PIECE, EOS_PIECE, Llama2cTokenizer

TOKENIZER = Llama2cTokenizer([b"<unk>", BOS_PIECE, EOS_PIECE, b" ", b"a"], [0.0] * 5)
HELLO = [{"role": "user", "content": "Hello"}]
SECONDS, CHARACTERS = 0.4, 1_000_000  # 0.1 on a calm machine; neighbours on the same core cost processor time
USES_MESSAGES = "{# messages #}"
LONG = "{% set x = 'a' * 500000 %}"

# what would take hours, or all memory
GREEDY = {
    "loops in loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
    + "{% endfor %}" * 3,
    "text in loops": "{% for a in range(9999) %}{% for b in range(9999) %}" + "x" * 999 + "{% endfor %}{% endfor %}",
    "loops that call themselves": "{% for a in [[1]] recursive %}{{ loop([[1], [1]]) }}{{ loop([[1], [1]]) }}{% endfor %}",
    "a loop over a huge range": "{% for a in range(10 ** 15) %}{% endfor %}",
    "macros that call themselves": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "macros in loops": "{% macro f(n) %}{% for i in range(999) %}{{ f(n - 1) if n }}{% endfor %}{% endmacro %}{{ f(9) }}",
    "blocks that call themselves": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "doubling by +": "{% set x = 'aaaaaaaa' %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
    "doubling by ~": "{% set x = 'aaaaaaaa' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
    "doubling by a block": "{% set x = 'aaaaaaaa' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "doubling a list": "{% set x = [1] %}" + "{% set x = x + x %}" * 60,
    "lists in lists": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "lists in lists, compared": (
        "{% set x = [1] %}{% set y = [1] %}" + "{% set x = [x, x] %}{% set y = [y, y] %}" * 60 + "{{ x == y }}"
    ),
    "mappings in mappings": "{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x|tojson }}",
    "arguments in arguments": (
        "{% set n = namespace(v=1) %}{% macro f() %}{% set n.v = varargs %}{% endmacro %}" + "{{ f(n.v, n.v) }}" * 60
    ),
    "a long text": "{{ 'a' * 10 ** 12 }}",
    "a long list": "{{ [1] * 10 ** 12 }}",
    "a huge power": "{{ 10 ** 300 ** 9 }}",
    "a huge product": "{% set x = 9 %}" + "{% set x = x * x %}" * 60,
    "a wide format": "{{ '{:999999999}'.format(1) }}",
    "a format of a wide argument": "{{ '{:{}}'.format(1, 999999999) }}",
    "a wide percent format": "{{ '%999999999d' % 1 }}",
    "many percent formats": LONG + "{{ '" + "%(a)s" * 3000 + "' % {'a': x} }}",
    "a method that pads": "{{ 'a'.ljust(999999999) }}",
    "a filter that pads": "{{ 'a'|center(999999999) }}",
    "a long replacement": LONG + "{{ x.replace('a', x) }}",
    "a long replacement by a filter": LONG + "{{ x|replace('', x) }}",
    "replacements that nobody looks at": LONG + "{{ range(9999)|map('string')|map('replace', '1', x)|list|length }}",
    "a long separator": LONG + "{{ x.join(x) }}",
    "a long separator in a filter": LONG + "{{ range(9999)|join(x) }}",
    "a wide indentation": "{{ ('\n' * 99999)|indent(99) }}",
    "a wide indentation of JSON": "{{ [[[1]]]|tojson(indent=999999999) }}",
    "rounding to many digits": "{{ 1.5|round(999999999, 'ceil') }}",
    "a sum of lists": "{{ [[1] * 90] * 90|sum(start=[]) }}",
    "a date that pads": "{{ strftime_now('%999999999d') }}",
    "long texts, again and again": LONG + "{% for i in range(9999) %}{% set y = x|urlencode|length %}{% endfor %}",
    "long searches, again and again": LONG + "{% for i in range(9999) %}{% set y = (x + 'b') in x %}{% endfor %}",
    "brackets in brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "tags in tags": "{% if a %}" * 5000,
    "a number of many digits": "{{ " + "9" * 60000 + " }}",
}  # fmt: skip
# what would reach outside of the template
CURIOUS = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__['sys'].exit(7) }}",
    "globals of a class": "{{ cycler.__init__.__globals__.os.system('exit 7') }}",
    "globals of a method": "{{ joiner().__call__.__func__.__globals__ ~ 1 }}",
    "a frame": "{{ (x for x in y).gi_frame }}",
    "a class by a filter": "{{ (''|attr('__class__')).mro() }}",
    "a format that looks inside": "{{ '{0.__class__.__mro__}'.format('') + 1 }}",
    "a format by a filter": "{{ (('{0.__class__.__mro__}'|attr('format'))('')).x.y }}",
    "names of Python in a namespace": "{% set n = namespace(__class__=1) %}",
    "the environment": "{{ self._TemplateReference__context.environment.x }}",
    "a file by include": "{% include '/etc/passwd' %}",
    "a file by import": "{% import '/etc/passwd' as p %}",
    "a file by extends": "{% extends '/etc/passwd' %}",
    "changing a message": "{{ messages[0].update(role='system') }}",
    "forgetting messages": "{{ messages.clear() }}",
}


@pytest.mark.parametrize("source", (GREEDY | CURIOUS).values(), ids=(GREEDY | CURIOUS).keys())
def test_a_hostile_template_is_refused_at_once(source: str):
    messages = [dict(message) for message in HELLO]
    JinjaTemplate(USES_MESSAGES, TOKENIZER)  # whose first use imports the library
    seconds = []
    while not seconds or (min(seconds) >= SECONDS and len(seconds) < 3):  # the cores may be shared
        started = time.thread_time()
        with pytest.raises(ChatTemplateError) as raised:
            JinjaTemplate(source + USES_MESSAGES, TOKENIZER).render(messages)
        seconds.append(time.thread_time() - started)
        assert "\n" not in str(raised.value)
    assert min(seconds) < SECONDS
    assert messages == HELLO


def test_memory_stays_small():
    import tracemalloc

    for name in ("doubling by ~", "lists in lists", "replacements that nobody looks at", "many percent formats"):
        template = JinjaTemplate(GREEDY[name] + USES_MESSAGES, TOKENIZER)
        tracemalloc.start()
        try:
            with pytest.raises(ChatTemplateError):
                template.render(HELLO)
            assert tracemalloc.get_traced_memory()[1] < 64 << 20, name
        finally:
            tracemalloc.stop()


def test_output_has_a_bound_that_grows_with_the_messages():
    template = JinjaTemplate("{% for m in messages %}{{ m.content }}{{ 'x' * 400000 }}{% endfor %}", TOKENIZER)
    assert len(template.render(HELLO)) < CHARACTERS
    with pytest.raises(ChatTemplateError, match="characters"):
        template.render(HELLO * 2)
    assert len(template.render([{"role": "user", "content": "y" * 100_000}] * 2)) == 1_000_000


def test_a_long_conversation_has_time_and_room():
    talk = [{"role": ("user", "assistant")[i % 2], "content": "word " * 50} for i in range(2000)]
    source = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m.content|trim|length %}"
        "{% if m.role in ['user', 'assistant'] %}{{ m.role ~ ': ' + m['content'].strip() + '\n' }}{% endif %}{% endfor %}"
        "{{ ns.n }}"
    )
    assert JinjaTemplate(source, TOKENIZER).render(talk).endswith("\n498000")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("a{% generation %}b{% set x = 1 %}{% endgeneration %}{{ x }}c", "abc"),
        ("{{ {'a': '<é>', 'b': [1, none]}|tojson }}", '{"a": "<é>", "b": [1, null]}'),
        ("{{ {'b': 1, 'a': 2}|tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{{ 'é'|tojson(ensure_ascii=true) }}{{ [1, 2]|tojson(separators=(',', ':')) }}", '"\\u00e9"[1,2]'),
        ("  {% if true %}\n  x\n  {% endif %}\ny", "  x\ny"),
        ("{{ strftime_now('%Y') }}", str(datetime.now().year)),
        ("{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a * 2 %}{% endfor %}{{ ns.a }}", "8"),
        ("{{ bos_token }}|{{ eos_token }}|{{ nothing }}|{{ tools is none }}{{ documents is none }}", "<s>|</s>||TrueTrue"),
        ("{{ style }}", "short"),
        ("{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}{{ v }}{{ loop.last }}{{ loop.length }}{% endfor %}",
         "a2False2b1True2"),
        ("{% macro f(x, y='!') %}{{ x }}{{ y }}{% endmacro %}{{ f('a') }}{{ f('b', y='?') }}", "a!b?"),
        ("{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}x{% endcall %}", "<x>"),
        ("{{ messages|map(attribute='role')|join(', ') }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
         "user1"),
        ("{{ 'a,b'.split(',')[-1] }}{{ 'x'.join(['1', '2']) }}{{ ' a '.strip() }}{{ 'aa'.replace('a', 'b', 1) }}", "b1x2aba"),
        ("{{ '%s-%02d' % ('a', 7) }}{{ '{}{a}'.format(1, a=2) }}{{ 3 * 'ab' }}{{ 7 // 2 }}{{ 2 ** 10 }}", "a-0712ababab31024"),
        ("{{ messages[0].content[::-1] }}{{ messages[-1]['role']|upper }}{{ messages[0].nothing is defined }}",
         "olleHUSERFalse"),
        ("{% for i in 'ab' recursive %}{{ i }}{{ loop('c') if loop.depth < 2 }}{% endfor %}", "acbc"),
        ("{{ [3, 1, 2]|sort|first }}{{ [1, 2.5]|sum }}{{ 2.567|round(1) }}{{ 'a\nb'|indent(2) }}", "13.52.6a\n  b"),
        ("{{ dict(a=1) }}{{ [1] + [2] }}{{ (1, 2)|list }}{{ {'a': 1}.items()|list }}", "{'a': 1}[1, 2][1, 2][('a', 1)]"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x }}{% filter upper %}b{% endfilter %}{% with y = 2 %}{{ y }}{% endwith %}",
         "a1B2"),
    ],
)  # fmt: skip
def test_an_honest_template_finds_what_transformers_gives_it(source: str, text: str):
    assert JinjaTemplate(source + USES_MESSAGES, TOKENIZER).render(HELLO, style="short") == text


def test_a_template_refuses_messages_in_its_own_words():
    template = JinjaTemplate("{{ raise_exception('Only one message, ' ~ messages[0].role) }}", TOKENIZER)
    with pytest.raises(ChatTemplateError, match="chat template: Only one message, user"):
        template.render(HELLO)


def test_one_template_renders_in_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    template = JinjaTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", TOKENIZER)
    talks = [[{"role": "user", "content": str(i)}] * 50 for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(template.render, talks)) == [str(i) * 50 for i in range(200)]
