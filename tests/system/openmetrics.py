"""A strict reader of the OpenMetrics 1.0 text format: every deviation is a ValueError that names the line."""
import re

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|Inf)\Z|NaN\Z")
SUFFIXES = {"counter": ("_total", "_created"), "gauge": ("",), "unknown": ("",), "info": ("_info",)}


class Family:
    def __init__(self, name, kind):
        self.name, self.kind, self.help, self.samples = name, kind, None, {}


def labels_of(text, line):
    labels, at = {}, 0
    while at < len(text):
        if at and text[at] != ",":
            raise ValueError(f"a comma is missing: {line}")
        match = LABEL.match(text, at + (1 if at else 0))
        if not match or match[1] in labels:
            raise ValueError(f"malformed or repeated label: {line}")
        labels[match[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], match[2])
        at = match.end()
    return labels


def parse(text):
    """{family name: Family}; samples are {(sample name, sorted labels): value}."""
    if not text.endswith("# EOF\n"):
        raise ValueError("the text does not end with '# EOF'")
    families, current = {}, None
    for line in text[:-len("# EOF\n")].split("\n")[:-1]:
        if line.startswith("# "):
            _, keyword, name, rest = (line + " ").split(" ", 3)
            rest = rest[:-1]
            if not NAME.match(name) or keyword not in ("TYPE", "HELP", "UNIT"):
                raise ValueError(f"malformed description: {line}")
            if keyword == "TYPE":
                if rest not in SUFFIXES or name in families:
                    raise ValueError(f"unknown type, or a family that comes back: {line}")
                current = families[name] = Family(name, rest)
            elif current is None or current.name != name or current.samples:
                raise ValueError(f"a description away from its family: {line}")
            elif keyword == "HELP":
                current.help = rest
            continue
        match = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z", line)
        if not match or not NUMBER.match(match[3]):
            raise ValueError(f"malformed sample: {line}")
        if current is None or not any(match[1] == current.name + s for s in SUFFIXES[current.kind]):
            raise ValueError(f"a sample away from its family: {line}")
        key = (match[1], tuple(sorted(labels_of(match[2] or "", line).items())))
        value = float(match[3])
        if key in current.samples:
            raise ValueError(f"the same series twice: {line}")
        if current.kind == "counter" and not value >= 0:
            raise ValueError(f"a counter below zero: {line}")
        current.samples[key] = value
    return families


def values(families, sample, **labels):
    """The values of all series of that sample name whose labels include these."""
    return [v for f in families.values() for (name, have), v in f.samples.items() if name == sample and set(labels.items()) <= set(have)]
