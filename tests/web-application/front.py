# What the world sees. It passes on what it is asked, to whichever application has the name.
import http.server, urllib.error, urllib.request

class Front(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            answer = urllib.request.urlopen("http://api:8000" + self.path, timeout=20)
            code, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            code, text = error.code, error.read()
        except OSError as error:
            code, text = 502, ("no application: " + str(error) + "\n").encode()
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text)

http.server.ThreadingHTTPServer(("", 80), Front).serve_forever()
