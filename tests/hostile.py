# ruff: noqa: E501
"""Programs that nobody wants to run, each of which also answers the problem, or pretends to.

All define `f`, which is to add one. What is in a comment behind a name is what it tries.
"""

RIGHT = "def f(x):\n    return x + 1\n"

# By name: what is wrong with them keeps them from passing.
FAILING = {
    # time
    "endless_loop": "while True: pass",
    "endless_loop_when_called": "def f(x):\n    while True: pass",
    "sleeps": "import time\ndef f(x):\n    time.sleep(1000)",
    "endless_loop_in_c": "def f(x):\n    return sum(iter(int, 1))",
    "backtracking": "import re\ndef f(x):\n    return re.match(r'(a+)+$', 'a' * 64 + 'b')",
    "power_tower": "def f(x):\n    return 9 ** 9 ** 9 ** 9",
    "ignores_signals": (
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "catches_everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "deadlock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "reads_input": "def f(x):\n    return input()",
    "waits_on_its_channel": "import os\nos.read(3, 1 << 20)\n" + RIGHT,
    "closes_its_channel": "import os, time\nos.close(3)\ntime.sleep(1000)",
    # memory
    "memory_bomb": "x = 'a' * (1 << 40)\n" + RIGHT,
    "memory_bomb_slowly": "x = []\nwhile True: x.append('a' * (1 << 20))",
    "list_that_holds_itself": "def f(x):\n    x = []\n    x.append(x)\n    return x",
    "deep_recursion": "def f(x):\n    return f(x)",
    "deep_recursion_without_a_limit": "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(x):\n    return f(x)",
    "deep_answer": "def f(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a",
    # output
    "huge_answer": "def f(x):\n    return 'a' * (1 << 28)",
    "endless_answer": "def f(x):\n    import itertools\n    return itertools.repeat(1)",
    "noise_on_its_channel": "import os\nwhile True: os.write(3, b'\\xff' * 65536)",
    # processes
    "fork_bomb": "import os\nwhile True: os.fork()",
    "thread_bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "leaves_a_process": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\n"
    + RIGHT,
    "runs_a_shell": "import subprocess\nsubprocess.run('touch /tmp/was_here', shell=True, check=True)\n"
    + RIGHT,
    "spawns": "import os, sys\nos.posix_spawn(sys.executable, ['python'], {})\n" + RIGHT,
    "becomes_another_program": "import os, sys\nos.execv(sys.executable, ['python', '-c', 'print(1)'])",
    "kills_its_parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n" + RIGHT,
    "kills_everyone": "import os, signal\nos.kill(-1, signal.SIGKILL)\n" + RIGHT,
    "stops_its_parent": "import os, signal\nos.kill(1, signal.SIGSTOP)\n" + RIGHT,
    "slows_others_down": "import os\nos.setpriority(os.PRIO_PROCESS, 1, 19)\n" + RIGHT,
    "binds_others_to_a_core": "import os\nos.sched_setaffinity(1, {0})\n" + RIGHT,
    "ends_its_parent_by_a_limit": "import resource\nresource.prlimit(1, resource.RLIMIT_CPU, (0, 0))\n"
    + RIGHT,
    "crashes": "import ctypes\nctypes.string_at(0)",
    # files
    "reads_passwords": "open('/etc/passwd').read()\n" + RIGHT,
    "reads_processes": "open('/proc/self/environ').read()\n" + RIGHT,
    "reads_the_checkout": "open(CODE).read()\n" + RIGHT,
    "writes_outside": "open('/tmp/was_here', 'w').write('x')\n" + RIGHT,
    "writes_to_the_library": "import os\nopen(os.path.join(os.path.dirname(os.__file__), 'was_here.py'), 'w')\n"
    + RIGHT,
    "removes_the_library": "import os, shutil\nshutil.rmtree(os.path.dirname(os.__file__))\n" + RIGHT,
    # network
    "opens_a_socket": "import socket\nsocket.socket()\n" + RIGHT,
    "connects": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT')\n" + RIGHT,
    # privileges
    "mounts": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/', b'tmpfs', 0, None) == 0\n"
    + RIGHT,
    "new_namespaces": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0\n" + RIGHT,
    "traces_its_parent": (
        "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0\n" + RIGHT
    ),
    "raises_its_limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (999, 999))\n" + RIGHT,
    # verdicts
    "exits_early": "import sys\nsys.exit(0)",
    "exits_when_called": "import os\ndef f(x):\n    os._exit(0)",
    "prints_passed": "import os\nprint('passed')\nfor n in range(9): \n  try: os.write(n, b'r111')\n  except OSError: pass",
    "equals_everything": (
        "class Any:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
        "def f(x):\n    return Any()"
    ),
    "an_integer_that_equals_everything": (
        "class Any(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\n"
        "def f(x):\n    return Any()"
    ),
    "patches_builtins": "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.all = lambda x: True\ndef f(x):\n    return 0",
    "patches_the_harness": (
        "import sys\nfor name, module in list(sys.modules.items()):\n"
        "    for key in list(vars(module)) if 'sandbox' in name else ():\n"
        "        if key in ('encode', 'send', 'decode'): setattr(module, key, lambda *a, **k: True)\n"
        "def f(x):\n    return None"
    ),
    "raises_assertion_errors": "def f(x):\n    raise AssertionError('passed')",
    "looks_for_the_tests": (
        "import gc, sys\n"
        "def f(x):\n"
        "    found = [o for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and len(o) < 50]\n"
        "    texts = [t for o in found for t in (o.values() if isinstance(o, dict) else o) if isinstance(t, str)]\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        texts += [v for v in frame.f_locals.values() if isinstance(v, str)]\n"
        "        frame = frame.f_back\n"
        "    here = [t for t in texts if 'assert f(' + str(x) in t]\n"
        "    return int(here[0].split('==')[1]) if here else None"
    ),
    "looks_for_the_tests_in_memory": (
        "import ctypes\ndef f(x):\n    for line in open('/proc/self/maps'): pass\n    return None"
    ),
}

# Odd, and right all the same.
PASSING = {
    "right": RIGHT,
    "finds_no_environment": "import os\nassert set(os.environ) <= {'PYTHONHASHSEED', 'LANG', 'LC_CTYPE', 'PWD'}\n"
    + RIGHT,
    "finds_no_home": "import os\nassert not (os.path.isdir(HOME) and set(os.listdir(HOME)) & OWN_FILES)\n"
    + RIGHT,
    "finds_no_processes": "import os\nassert not os.path.exists('/proc/1')\n" + RIGHT,
    "finds_no_files_of_the_machine": "import os\nassert not {'etc', 'var', 'proc', 'sys', 'run'} & set(os.listdir('/'))\n"
    + RIGHT,
    "finds_nothing_writable": (
        "import os\n"
        "for folder in ('/', '/tmp', '/dev', '/usr', '/usr/lib', os.path.dirname(os.__file__)):\n"
        "    try: os.open(folder + '/was_here', os.O_CREAT | os.O_WRONLY)\n"
        "    except OSError: continue\n"
        "    raise SystemExit\n" + RIGHT
    ),
    "prints_a_lot": "for _ in range(100): print('a' * (1 << 16))\n" + RIGHT,
    "writes_to_closed_streams": "import sys\nsys.stderr.write('x' * (1 << 20))\n" + RIGHT,
    "imports": "import json, re, math, typing, collections, heapq, zoneinfo, sqlite3, ctypes\n" + RIGHT,
    "recursion": "def f(x):\n    return x + 1 if x <= 0 else 1 + f(x - 1)",
    "deep_but_bounded": "import sys\nsys.setrecursionlimit(5000)\ndef g(n):\n    return 0 if n == 0 else g(n - 1)\n"
    + RIGHT.replace("return", "g(3000)\n    return"),
    "a_class_that_calls": "class F:\n    def __call__(self, x): return x + 1\nf = F()",
    "main_is_not_run": RIGHT + "\nif __name__ == '__main__':\n    while True: pass\n",
    "a_tenth_of_a_gigabyte": "x = bytearray(100 << 20)\n" + RIGHT,
    "half_a_second": "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"
    + RIGHT,
    "an_integer_of_its_own": "class I(int): pass\ndef f(x):\n    return I(x + 1)",
    "hides_a_builtin": "sum = None\nlen = None\nprint = None\n" + RIGHT,
}
