"""JSON Schemas of the models, in the vocabulary that JSON Schema 2020-12, draft 7 and AsyncAPI 3 share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

if TYPE_CHECKING:
    from pydantic_core.core_schema import DataclassField, ModelField, TaggedUnionSchema, TypedDictField

    from wch_common.contract.event import EventData


class PlainJsonSchema(GenerateJsonSchema):
    """Generates schemas without keywords that only OpenAPI defines, and without titles that repeat a field's name."""

    def tagged_union_schema(self, schema: TaggedUnionSchema) -> dict[str, Any]:
        published = super().tagged_union_schema(schema)
        # OpenAPI's keyword: ajv refuses it in strict mode, and AsyncAPI's `discriminator` is a string.
        published.pop("discriminator", None)
        # A tag in brackets is in no field, so a reader cannot tell the alternatives apart by one.
        if any(str(tag).startswith("(") for tag in schema["choices"]):
            published["anyOf"] = published.pop("oneOf")
        return published

    def field_is_required(self, field: ModelField | DataclassField | TypedDictField, total: bool) -> bool:  # noqa: FBT001 - pydantic's signature
        """Return True for a tag with a default too, because a union is read by its tag."""
        return super().field_is_required(field, total) or _is_tag(field["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's signature
        """Return False: a title like "Product Id" only repeats the name of the field."""
        return False


def _is_tag(schema: Any) -> bool:  # noqa: ANN401 - a core schema of any kind
    inner = schema["schema"] if schema["type"] == "default" else schema
    return inner["type"] == "literal" and len(inner["expected"]) == 1


def model_schema(model: type[EventData], ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
    """Return the schema of an event's data, with its parts in `$defs`, which references name by the template."""
    return model.model_json_schema(ref_template=ref_template, schema_generator=PlainJsonSchema)
