"""Kinds in sentences: what kowactl says of the verbs that all of them have."""

from kowa import contract


def singular(kind: contract.Kind) -> str:
    """`an agent token`."""
    noun = kind.noun.replace("_", " ")
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(kind: contract.Kind) -> str:
    """`agent tokens`."""
    return kind.plural.replace("-", " ")


def help_text(kind: contract.Kind, method: contract.Method) -> str:
    """What a command does. The contract's words are of one call; of the standard verbs they are not the command's."""
    one, many = singular(kind), plural(kind)
    sentences = {
        "list": f"Shows {many}. All of them, or those that match a filter.",
        "get": f"Shows all of {one}.",
        "create": f"Creates {one}. Waits until it is there.",
        "update": f"Changes {one}. What is not given stays as it is; waits until the change is done.",
        "delete": f"Deletes {one}. Waits until it is gone.",
        "watch": f"Shows {many} as they change. First those that are there, then each change, until you end it.",
    }
    if kind.name == "Operation":
        sentences["wait"] = "Waits until the operation is done. Exits with 9 when it failed, 10 when the time is up."
    return sentences.get(method.verb, method.comment.replace("`", ""))


def first_sentence(text: str) -> str:
    """Its first sentence, whole."""
    return " ".join(text.partition(". ")[0].rstrip(".").split())
