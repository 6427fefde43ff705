"""Every way atoll fails, on one page.

    AtollError                    exit 1
      InputError                  exit 2: something the user gave is wrong; nothing was started
        BadDocument               a YAML or JSON document with a field that does not fit
        BadTopology               text that is no `nvidia-smi topo -m` matrix
        UnknownGpu                a GPU name that the catalogue does not have
        UnknownModel              a model that is neither in the catalogue nor on disk
        BadModel                  a config.json that cannot be understood
        BadTraffic                a load shape or a trace that makes no sense
        NothingFits               no layout of this model fits on this box
        BadRun                    a folder that holds no readable run or study
        NotThere                  an id that names nothing in a workspace or a catalogue
        MissingProgram            a program or an optional package that this command needs
      RunFailed                   exit 1: the input was fine, the run was not
        StartFailed               a replica or the router did not come up
        CommandFailed             a program that we ran ended with an error
        NoMeasurement             the run ended without one usable record
      GateFailed                  exit 1: the run was fine, and a gate that was asked for holds
      CatalogFailed               exit 1: the catalogue of runs could not do what it was asked to
      Interrupted                 exit 130: Ctrl-C; what was measured is kept

A message is one sentence that says what, where, and what to do next.
"""

from typing import ClassVar


class AtollError(Exception):
    """Base of all errors that are shown to a person as one sentence."""

    exit_code: ClassVar[int] = 1


class InputError(AtollError):
    """What the user gave is wrong; nothing was started."""

    exit_code: ClassVar[int] = 2


class BadDocument(InputError):
    """A document with a missing, unknown or ill-typed field; the sentence names file and path."""


class BadTopology(InputError):
    """Text in which no GPU topology matrix can be read with certainty."""


class UnknownGpu(InputError):
    """A GPU name that the catalogue does not have."""


class UnknownModel(InputError):
    """A model that is neither in the shipped catalogue nor on disk."""


class BadModel(InputError):
    """A config.json or a safetensors index that cannot be understood."""


class BadTraffic(InputError):
    """A load shape or a trace that makes no sense."""


class NothingFits(InputError):
    """No layout of this model fits on this box."""


class BadRun(InputError):
    """A folder that holds no readable run or study."""


class NotThere(InputError):
    """An id that names nothing in a workspace or a catalogue."""


class MissingProgram(InputError):
    """A program or an optional package that this command needs is not installed."""


class RunFailed(AtollError):
    """The input was fine, the run was not."""


class StartFailed(RunFailed):
    """A replica or the router did not come up; the sentence carries the cause from its log."""


class CommandFailed(RunFailed):
    """A program that we ran ended with an error; the sentence carries its last words."""


class NoMeasurement(RunFailed):
    """The run ended without one usable record."""


class GateFailed(AtollError):
    """A gate (--fail-if) holds; the sentence says which figure is beyond what."""


class CatalogFailed(AtollError):
    """The catalogue of runs is locked, full, broken or gone; the sentence carries its own words."""


class Interrupted(AtollError):
    """Ctrl-C: the run was stopped by hand; what was measured until then is kept."""

    exit_code: ClassVar[int] = 130
