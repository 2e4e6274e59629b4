"""Tries the checks of test_grade.py on a submission, in a process of its own that may hang, crash or end."""

import contextlib
import importlib.util
import io
import json
import multiprocessing
import os
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
START, IMPORT, CHECK = 300, 60, 10  # seconds: PyTorch's start, a submission's import, a check


class Grader:
    """Keeps one process going, which imports PyTorch once, and starts another where a submission ends it."""

    def __init__(self):
        self.process = None
        self.imported = {}  # what went wrong with a file's import, None: nothing

    def check(self, path, name):
        """What is wrong with the submission, by the check of that name, or None. path: of its trip.py."""
        import test_grade
        module = test_grade.CHECKS[name].function.split(".")[0]
        file = path if module == "trip" else path.with_name("data.py")
        if not file.is_file():
            return f"{file.name} was not handed in: it belongs beside trip.py"
        if self.process is None:
            self.start()
        if self.imported.get(file) is None:  # (it takes no time to import again what is imported)
            self.imported[file] = self.ask(["load", str(file)], IMPORT)
        if self.imported[file]:
            return f"{file.name} cannot be imported: {self.imported[file]}"
        return self.ask(["check", name], CHECK)

    def start(self):
        context = multiprocessing.get_context("spawn")  # (a fork may hang on macOS, and Windows has none)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        if self.ask(["start"], START):
            raise RuntimeError("the grader's own process does not start")

    def ask(self, question, limit):
        try:
            self.pipe.send_bytes(json.dumps(question).encode())
            if self.pipe.poll(limit):
                return json.loads(self.pipe.recv_bytes())
            self.stop()
            return f"stopped after {limit} seconds: an endless loop, or something that waits?"
        except (OSError, EOFError, ValueError):
            self.process.join(1)
            code = self.process.exitcode
            self.stop()
            return f"it ended the whole process (exit code {code}): os._exit, a crash?"

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.join(10)
            self.pipe.close()
        self.process = None


# ------------------------------------------------------------------------------------------------------------
# The other process

def work(pipe):
    """Answer each question with what is wrong, or None."""
    import torch

    import test_grade

    sys.dont_write_bytecode = True  # leave no __pycache__ in a student's folder
    own = [part for part in sys.path if part not in ("", str(ROOT))]
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # input() fails instead of waiting
        os.dup2(nowhere, standard)
    modules, file, me = {}, None, os.getpid()
    # the first one takes seconds, not to be paid by a submission
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    pipe.recv_bytes()
    pipe.send_bytes(b"null")
    while True:
        kind, what = json.loads(pipe.recv_bytes())
        said, wrong = Said(), None
        torch.manual_seed(0)  # what the check before may have changed
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                if kind == "load":
                    file = Path(what)
                    if file not in modules:
                        modules[file] = load(file, own)
                else:
                    test_grade.CHECKS[what].run(modules[file])
        except BaseException as error:  # SystemExit and KeyboardInterrupt among them
            wrong = explain(error, file)
            if said.end:
                wrong += f"\n  printed   {said.end.strip()}"
        if os.getpid() != me:  # a fork that the submission left behind
            os._exit(0)
        pipe.send_bytes(json.dumps(wrong).encode())


class Said(io.TextIOBase):
    """Keeps the end of what is printed."""
    end = ""

    def write(self, text):
        self.end = (self.end + text)[-1000:]
        return len(text)


def load(file, own):
    """Import a submission's file. It finds its own data.py first, then the one of this folder."""
    importlib.invalidate_caches()
    for name in ("trip", "data", "eval"):
        sys.modules.pop(name, None)
    sys.path[:] = [str(file.parent), str(ROOT), *own]
    spec = importlib.util.spec_from_file_location(file.stem if file.stem == "data" else "trip", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def explain(error, file):
    """An exception in a few lines: a check's own message, or what was raised and where in the submission."""
    import test_grade
    if type(error) is test_grade.Wrong:
        return str(error)
    if type(error) is NotImplementedError:
        return f"not done yet: {error}"
    message = traceback.format_exception_only(error)[-1].strip()[:500]
    if isinstance(error, SyntaxError):
        message += f", line {error.lineno}: {(error.text or '').strip()}"
    lines = [frame for frame in traceback.extract_tb(error.__traceback__)
             if Path(frame.filename).parent == file.parent]
    return f"raised {message}" + "".join(f"\n  in {Path(f.filename).name}, line {f.lineno}: {f.line}"
                                         for f in lines[-1:])
