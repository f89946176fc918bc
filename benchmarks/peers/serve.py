"""The contender's side of the benchmarks' protocol: one line of JSON per request and reply."""

import json
import platform
import resource
import sys
import time
import traceback


def say(reply):
    sys.stdout.write(json.dumps(reply, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def say_missing(what):
    say({"missing": what})
    sys.exit(0)


def mean_time(run, milliseconds, counts=1):
    """Nanoseconds of a call: the mean over at least one run, which counts for some calls, and at least so many milliseconds."""
    start = time.perf_counter()
    calls = 0
    while True:
        run()
        calls += counts
        elapsed = time.perf_counter() - start
        if elapsed * 1000 >= milliseconds:
            return elapsed * 1e9 / calls


def serve(name, prepare):
    """`prepare(case)` gives (run, check), (run, check, calls of a run) or None; `check()` gives some elements of the result."""
    runtime = f"Python {platform.python_version()}"
    say({"hello": {"name": name, "runtime": runtime, "vectorBits": 256}})
    current = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                current = prepare(request["prepare"])
                say({"declined": True} if current is None else {"prepared": current[1]()})
            elif "sample" in request:
                ns = mean_time(current[0], request["sample"], *current[2:])
                say({"ns": ns, "maxRss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
            else:
                current = None
                say({"released": True})
        except Exception:
            say({"error": traceback.format_exc()})
