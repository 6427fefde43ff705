"""What a form brings: text that was pasted, or the file that holds it."""

from fastapi import UploadFile

from atoll.errors import InputError


async def given_text(text: str, file: UploadFile | None, *, most_bytes: int, what: str) -> str:
    """The file's text where one was chosen, else the pasted one; raises InputError when it is larger than `what` is."""
    if file is None or not file.filename:
        return text
    data = await file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise InputError(f"{file.filename} is larger than {most_bytes >> 20} MiB; no {what} is.")
    return data.decode("utf-8", errors="replace")
