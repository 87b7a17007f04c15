# SPDX-License-Identifier: GPL-2.0
"""Keeps programs running in a guest, and draws from all of them on request.

    control.py ROWS.json FIFO

ROWS.json maps names to shell commands. Each command runs as long as this program, and
prints a line for every line that it reads. A command whose connection has ended is
started again, as by its user. For every line from the FIFO, this program prints the draws
of all commands in a line of JSON.
"""
import json
import subprocess
import sys

DRAWS = 4


class Program:
    def __init__(self, command):
        self.command = command
        self.start()

    def start(self):
        self.process = subprocess.Popen(["sh", "-c", self.command], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self):
        try:
            self.process.stdin.write("draw\n")
        except BrokenPipeError:
            return ""
        return self.process.stdout.readline().strip()

    def draw(self):
        drawn = self.ask()
        if not drawn:
            self.process.kill()
            self.process.wait()
            self.start()
            drawn = self.ask()
        return drawn


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        programs = {name: Program(command) for name, command in json.load(file).items()}
    silent = [name for name, program in programs.items() if not program.draw()]
    print("silent", json.dumps(silent), flush=True)
    while True:
        with open(sys.argv[2], encoding="utf-8") as fifo:
            fifo.readline()
        print("drawn", json.dumps({name: [program.draw() for _ in range(DRAWS)]
                                   for name, program in programs.items()}), flush=True)


main()
