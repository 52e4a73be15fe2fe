"""Envoy's own answers, in the one form that every error of /api/v2 has."""

from typing import Any, Final

from gateway import bodies

Json = dict[str, Any]

# HTTP status -> gRPC code.
CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 8, 429: 8, 431: 3, 501: 12, 503: 14, 504: 4}
INTERNAL: Final = 13

NOT_GRPC: Final[Json] = {
    "name": "content-type",
    "string_match": {"prefix": "application/grpc"},
    "invert_match": True,
    "treat_missing_header_as_empty": True,
}


def local_replies(body_limit: int, long_call_limit: int) -> Json:
    """Envoy's own answers to REST callers, in the form of a converted gRPC status; the limits are in bytes."""
    rest = {
        "or_filter": {
            "filters": [
                # Transcoded already: its content type says grpc by now.
                {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": True}}},
                {"header_filter": {"header": NOT_GRPC}},
            ]
        }
    }

    def mapper(code: int, *conditions: Json, message: str = "%LOCAL_REPLY_BODY%") -> Json:
        body = {"code": code, "message": message, "details": []}
        return {
            "filter": {"and_filter": {"filters": [rest, *conditions]}} if conditions else rest,
            "body_format_override": {"json_format": body},
        }

    def status(value: int) -> Json:
        comparison = {"op": "EQ", "value": {"default_value": value, "runtime_key": f"gateway.local_reply.{value}"}}
        return {"status_code_filter": {"comparison": comparison}}

    said = (
        f"too large: a body has {body_limit} bytes at most, {long_call_limit} that of a wait, a watch or a console,"
        " and none in a GET without content-length"
    )
    too_large = mapper(CODES[413], status(413), message=said)
    others = [mapper(code, status(value)) for value, code in CODES.items() if value != 413]
    return {"mappers": [_wrong_requests(), too_large, *others, mapper(INTERNAL)]}


def _wrong_requests() -> Json:
    """The refusal of what names no field or one twice, as Kahuna says INVALID_ARGUMENT."""
    found = {"filter": bodies.FILTER_NAME, "path": [{"key": "violations"}], "value": {"present_match": True}}
    said = {
        "code": 3,
        "message": "%LOCAL_REPLY_BODY%",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "INVALID_ARGUMENT",
                "domain": "kowabunga",
                "metadata": {},
            },
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "field_violations": f"%DYNAMIC_METADATA({bodies.FILTER_NAME}:violations)%",
            },
        ],
    }
    return {
        "filter": {"metadata_filter": {"matcher": found, "match_if_key_not_found": False}},
        "body_format_override": {"json_format": said},
    }
