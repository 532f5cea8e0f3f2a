"""Text of every sort from a seed: prose, code, emoji, scripts of the world, numbers, runs of white space. For tokenizers."""

import random
from functools import partial

# Characters that every version of Unicode has had for decades, so that no library's tables are too old for one
BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x391, 0x3A2), (0x410, 0x450), (0x5D0, 0x5EB), (0x905, 0x93A), (0xE01, 0xE3B)]
BLOCKS += [(0x2010, 0x2028), (0x2190, 0x2200), (0x2600, 0x2614), (0x3041, 0x3095), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4)]
BLOCKS += [(0x1F300, 0x1F321), (0x1D400, 0x1D455), (0x20000, 0x2A6D7)]

PARTS = {
    "word": "the|a|little|girl|named|Lily|saw|big|red|ball|and|she|said|it|was|too|high|but|don't|can't|we'll|I'd|you're"
    "|they've|O'Neil|HE'S|SHE'LL|naïve|café|Übermut|coöperate|niño|Straße|l'été|однажды|жила|девочка|παλιά|ιστορία",
    "code": """def f(x):
    return x**2 + 1
|for (int i = 0; i < n; ++i) { a[i] += b[i]; }
|\tif err != nil {\r
\t\treturn err\r
\t}
|SELECT * FROM t WHERE id >= 10;|<div class="x">&nbsp;</div>|x = {'a': [1, 2.5e-3], "b": None}  # TODO
|#include <stdio.h>
|https://example.org/a/b?c=d&e=%20f|C:\\dir\\file.txt|->|=>|!==|...|```python
|----------|/**/|$x_1|__init__""",
    "emoji": "😀|🏳️‍🌈|👨‍👩‍👧‍👦|👍🏽|🇩🇪|☃️|❤️|🤷🏻‍♀️|🧪",
    "script": "日本語の文章です。|数学|한국어 문장|中文，标点！|مرحبا بالعالم|שלום|नमस्ते दुनिया|ไทยไม่มีช่องว่าง|ខ្មែរ|İstanbul",
    "space": " |  |   |     |\t|\t\t|\n|\n\n|\r\n| \n |\n\n\n|\u00a0|\u3000|\u2003| \t |\u200b|\ufeff",
    "mark": "▁|▁▁|Ġ|<0x41>|<|>|[INST]|a\u0301|ﬁ|①|Å|\x00|\x7f|\u00ad|\U0010ffff|\ufffd",
}


def mixed_text(n_characters: int, seed: int = 0) -> str:
    """A text of at least n_characters; the same seed makes the same text."""
    rng = random.Random(seed)
    kinds = [_prose] * 4 + [_number, _any_characters, _run]
    kinds += [partial(_part, name) for name in ("code", "code", "emoji", "script", "script", "mark", "space", "space", "space")]
    parts: list[str] = []
    n = 0
    while n < n_characters:
        parts.append(rng.choice(kinds)(rng))
        n += len(parts[-1])
    return "".join(parts)


def _part(name: str, rng: random.Random) -> str:
    return rng.choice(PARTS[name].split("|"))


def _prose(rng: random.Random) -> str:
    sentence = " ".join(rng.choices(PARTS["word"].split("|"), k=rng.randrange(3, 20)))
    return sentence.capitalize() + rng.choice((". ", "! ", "?\n", ", ", '" ', "; "))


def _number(rng: random.Random) -> str:
    digits = "".join(rng.choices("0123456789", k=rng.randrange(1, 12)))
    return rng.choice(("{}", " {}", "{}.5 ", "-{}", "{}%", "1,{}", "x{}", "٣{}", "½{}", "²{}")).format(digits)


def _any_characters(rng: random.Random) -> str:
    return "".join(chr(rng.randrange(*rng.choice(BLOCKS))) for _ in range(rng.randrange(1, 6)))


def _run(rng: random.Random) -> str:
    return rng.choice(" \n\t=-.a!9é好") * rng.choice((2, 3, 5, 8, 17, 40, 130))
