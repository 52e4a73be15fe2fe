"""Help texts made from the contract: descriptions and examples of commands."""

import textwrap

from kowa import contract
from kowa.contract import Field, Kind, Message, Method
from kowactl import options

LINE_WIDTH = 96
NO_BREAK = "\N{NO-BREAK SPACE}"


def noun_with_article(kind: Kind) -> str:
    """The kind's name with its article: `an agent token`."""
    noun = kind.noun.replace("_", " ")
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def help_text(kind: Kind, method: Method) -> str:
    """Describes a command. Contract comments describe the RPC, so standard verbs get their own text here."""
    one, many = noun_with_article(kind), kind.plural.replace("-", " ")
    sentences = {
        "list": f"Shows {many}. All of them, or those that match a filter.",
        "get": f"Shows all of {one}.",
        "create": f"Creates {one}. Waits until it is ready.",
        "update": f"Changes {one}. Fields that are not given stay as they are; waits until the change is done.",
        "delete": f"Deletes {one}. Waits until it is gone.",
        "watch": f"Shows {many} as they change. First those that are there, then each change, until you end it.",
    }
    if kind.name == "Operation":
        sentences["wait"] = "Waits until the operation is done. Exits with 9 when it failed, 10 when the time is up."
    return sentences.get(method.verb, method.comment.replace("`", ""))


def example(kind: Kind, method: Method) -> str:
    """An example command line of the method."""
    start = f"kowactl {kind.command} {method.verb}"
    match method.verb:
        case "list":
            order = "'name desc'" if "name" in kind.message.fields else "target_name"
            return f"{start} --order-by {order} -o json"
        case "watch":
            return f"{start} -o json"
        case "create":
            shown = [field for field in kind.writable if _is_shown(kind.message, field)]
            return _wrapped([start, *(_option_example(kind, field) for field in shown)])
        case "update":
            fields = options.changeable(kind)
            chosen = next((f for f in fields if f.name not in ("name", "description", "labels")), fields[0])
            return f"{start} {_name(kind)} {_option_example(kind, chosen)} --reason 'as asked in ticket 42'"
        case _:
            target = [_name(kind)] if "id" in method.request.fields else []
            fields = [field for field in method.request.fields.values() if field.name != "id"]
            shown_options = (_option_example(kind, field) for field in fields if _is_shown(method.request, field))
            return _wrapped([start, *target, *shown_options])


def _is_shown(message: Message, field: Field) -> bool:
    """Whether an example has it: required fields, also conditionally required ones, and fields with submessages."""
    oneof = message.oneofs.get(field.oneof)
    is_first = oneof is not None and oneof.required and oneof.fields[0] == field.name
    return is_first or field.comment.startswith("Required") or field.name in message.submessages


def _name(kind: Kind) -> str:
    return f"my-{kind.command}" if "name" in kind.message.fields else "ID"


def _option_example(kind: Kind, field: Field) -> str:
    flag = options.flags(field)[0]
    return flag if field.type == "bool" else f"{flag} {_sample(kind, field)}"


def _sample(kind: Kind, field: Field) -> str:
    """A valid value of the field."""
    if field.ref:
        return f"my-{contract.load().kinds[field.ref].command}"
    if field.type == "enum":
        return contract.load().enums[field.type_name][1].short
    if part := contract.load().messages.get(field.type_name):
        subfields = [each for each in part.fields.values() if not each.output_only]
        chosen = [each for each in subfields if each.required] or subfields[:1]
        sample = ",".join(f"{options.option_name(each)}={_sample(kind, each)}" for each in chosen)
        return f"name={sample}" if field.is_map else sample
    if field.is_map:
        return "name=2" if "int" in field.type else "name=value"
    if field.in_bytes:
        return "8G"
    if "int" in field.type:
        return "2"
    rule = field.rule
    samples = [
        (rule.name or rule.dns_label, f"my-{kind.command}"),
        (rule.cidr, "10.0.0.0/24"),
        (rule.ip, "10.0.0.5"),
        (rule.mac, "52:54:00:12:34:56"),
        (rule.sha256, "$SHA256"),
        (rule.interface, "eth0"),
        (rule.ports, "443"),
        (rule.host_name, "www.example.net"),
    ]
    return next((sample for applies, sample in samples if applies), field.name.upper())


def _wrapped(words: list[str]) -> str:
    """Joins words to a command line, wrapped as a shell allows; an option and its value stay together."""
    text = " ".join(word.replace(" ", NO_BREAK) for word in words)
    lines = textwrap.wrap(text, LINE_WIDTH, break_long_words=False, break_on_hyphens=False)
    return " \\\n      ".join(lines).replace(NO_BREAK, " ")
