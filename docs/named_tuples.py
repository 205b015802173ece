"""A griffe extension: a NamedTuple has the parameters of its fields, which its docstring describes."""

import griffe


class NamedTuples(griffe.Extension):
    """Adds the constructor that Python makes, as griffe itself does for dataclasses."""

    def on_class(self, *, cls: griffe.Class, **kwargs) -> None:
        """Add `__init__` to a NamedTuple."""
        if not any(str(base).endswith("NamedTuple") for base in cls.bases):
            return
        fields = [
            griffe.Parameter(
                name, annotation=field.annotation, default=field.value, kind=griffe.ParameterKind.positional_or_keyword
            )
            for name, field in cls.members.items()
            if field.is_attribute and field.annotation is not None
        ]
        init = griffe.Function("__init__", lineno=0, endlineno=0, parameters=griffe.Parameters(*fields))
        cls.set_member("__init__", init)
