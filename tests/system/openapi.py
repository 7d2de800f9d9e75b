"""Reads api/openapi.yaml, and says where a JSON value is not what a schema of it allows. Only what that file uses."""
import os
import re

import support

TYPES = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "array": list, "object": dict}


class OpenApi:
    def __init__(self, path=None):
        import yaml  # from ./dev deps --tests
        with open(path or os.path.join(support.TOP, "api/openapi.yaml")) as f:
            self.document = yaml.safe_load(f)

    def resolve(self, node):
        while "$ref" in node:
            target = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def operations(self):
        """(method, path, operation)"""
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation

    def routes(self):
        return {f"{method} {path}" for method, path, _ in self.operations()}

    def body(self, operation):
        """The schema of a JSON body; none where it has none."""
        content = operation.get("requestBody", {}).get("content", {})
        return self.resolve(content["application/json"]["schema"]) if "application/json" in content else None

    def parameters(self, operation, where):
        return [p for p in map(self.resolve, operation.get("parameters", [])) if p["in"] == where]

    def answer(self, operation, status):
        response = operation["responses"].get(str(status))
        content = self.resolve(response).get("content", {}) if response else {}
        return content.get("application/json", {}).get("schema")

    def problems(self, schema, value, where="answer"):
        """Why `value` does not fit; empty where it does."""
        schema = self.resolve(schema)
        if value is None and schema.get("nullable"):
            return []
        out = []
        for part in schema.get("allOf", []):
            out += self.problems(part, value, where)
        if "oneOf" in schema and all(self.problems(part, value, where) for part in schema["oneOf"]):
            out.append(f"{where}: fits none of {[p.get('$ref', p) for p in schema['oneOf']]}")
        kind = schema.get("type")
        if kind is None:
            return out
        if not isinstance(value, TYPES[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
            return out + [f"{where}: {value!r} is not of type {kind}"]
        if "enum" in schema and value not in schema["enum"]:
            out.append(f"{where}: {value!r} is none of {schema['enum']}")
        if schema.get("format") == "date-time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value):
            out.append(f"{where}: {value!r} is no time")
        if kind == "array":
            for i, item in enumerate(value):
                out += self.problems(schema["items"], item, f"{where}[{i}]")
        if kind == "object":
            known = schema.get("properties", {})
            out += [f"{where}: {name} is missing" for name in schema.get("required", []) if name not in value]
            for name, item in value.items():
                if name in known:
                    out += self.problems(known[name], item, f"{where}.{name}")
                elif isinstance(schema.get("additionalProperties"), dict):
                    out += self.problems(schema["additionalProperties"], item, f"{where}.{name}")
                elif known and "allOf" not in schema and schema.get("description"):
                    out.append(f"{where}: {name} is not described")
        return out
