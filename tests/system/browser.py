"""Debian's chromium without a window, by its own protocol: objects of JSON with a NUL behind each, over two pipes.

No driver and no library: descriptor 3 is what the browser hears, 4 is what it says.
"""
import base64
import json
import os
import shutil
import subprocess
import threading
import time


def find():
    """The path of a chromium, or None."""
    return shutil.which('chromium') or shutil.which('chromium-browser')


class Browser:
    def __init__(self, folder, seconds=30, width=1400, height=1000):
        """One page. folder is for its profile; seconds is the deadline of each wait."""
        self.seconds = seconds
        hear, speak = os.pipe()
        listen, say = os.pipe()
        command = ['bash', '-c', f'exec 3<&{hear} 4>&{say}; exec "$@"', 'bash', find(), '--headless', '--no-sandbox', '--disable-gpu',
                   '--remote-debugging-pipe', '--disable-dev-shm-usage', '--no-first-run', '--disable-extensions',
                   '--disable-background-networking', '--disable-component-update', '--disable-sync',
                   f'--user-data-dir={folder}/chromium', f'--window-size={width},{height}', 'about:blank']
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        pass_fds=(hear, say), env={**os.environ, 'HOME': str(folder)}, start_new_session=True)
        os.close(hear)
        os.close(say)
        self.speak, self.listen = speak, listen
        self.number = 0
        self.answers, self.console = {}, []
        self.changed = threading.Condition()
        self.ended = False
        threading.Thread(target=self._read, daemon=True).start()
        self.session = None
        target = self.call('Target.getTargets')['targetInfos']
        page = next(x for x in target if x['type'] == 'page')
        self.session = self.call('Target.attachToTarget', targetId=page['targetId'], flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')

    def _read(self):
        rest = b''
        while True:
            data = os.read(self.listen, 1 << 16)
            if not data:
                break
            *whole, rest = (rest + data).split(b'\0')
            for text in whole:
                self._hear(json.loads(text))
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _hear(self, message):
        with self.changed:
            if 'id' in message:
                self.answers[message['id']] = message
            elif message['method'] == 'Runtime.consoleAPICalled':
                self.console.append(f"{message['params']['type']}: {message['params']['args']}")
            elif message['method'] == 'Runtime.exceptionThrown':
                self.console.append(f"exception: {message['params']['exceptionDetails']}")
            elif message['method'] == 'Log.entryAdded':
                self.console.append(f"log: {message['params']['entry']}")
            self.changed.notify_all()

    def call(self, method, **parameters):
        self.number += 1
        number = self.number
        message = {'id': number, 'method': method, 'params': parameters}
        if self.session:
            message['sessionId'] = self.session
        os.write(self.speak, json.dumps(message).encode() + b'\0')
        with self.changed:
            if not self.changed.wait_for(lambda: number in self.answers or self.ended, self.seconds):
                raise AssertionError(f'the browser does not answer {method}')
            assert number in self.answers, f'the browser ended at {method}'
            answer = self.answers.pop(number)
        assert 'error' not in answer, f'{method}: {answer["error"]}'
        return answer['result']

    def open(self, url):
        self.call('Page.navigate', url=url)

    def value(self, script):
        """The value of an expression in the page."""
        result = self.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in result, f'{script}: {result}'
        return result['result'].get('value')

    def wait(self, script, what):
        """Until an expression is true in the page; its value."""
        end = time.monotonic() + self.seconds
        pause = threading.Event()
        while time.monotonic() < end:
            value = self.value(f'document.body ? ({script}) : false')
            if value:
                return value
            pause.wait(0.02)
        raise AssertionError(f'{what}: not in the page within {self.seconds} s; the console says {self.console}')

    def look(self, dark=False, calm=False, width=1400, height=1000, phone=False):
        """How the page is looked at."""
        features = [{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'},
                    {'name': 'prefers-reduced-motion', 'value': 'reduce' if calm else 'no-preference'}]
        self.call('Emulation.setEmulatedMedia', features=features)
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def picture(self, path, whole=True):
        data = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=whole)['data']
        with open(path, 'wb') as file:
            file.write(base64.b64decode(data))

    def close(self):
        try:
            self.session = None
            self.call('Browser.close')
            self.process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.speak)
