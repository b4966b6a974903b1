"""What is checked in pages without running anything: links and anchors, pictures, and that a chapter has what a chapter needs."""
import glob
import os
import re
import xml.etree.ElementTree as ElementTree

import cuts
import pages

CHAPTER = re.compile(r'docs/\d\d-[a-z-]+\.md$')
SVG = '{http://www.w3.org/2000/svg}'
SMALLEST_TEXT = 13      # pixels, where the picture is as wide as the page: 720


def complaints(root, names=None):
    """Of the pages in docs/ that are named; of all, and of the other pages of the project, if none is."""
    paths = [f'docs/{name}' for name in names or cuts.page_names(root)]
    if names is None:
        paths += sorted(os.path.relpath(path, root) for pattern in ('*.md', 'labs/*.md', 'labs/*/*.md') for path in
                        glob.glob(os.path.join(root, pattern)))
    check = Check(root)
    for path in paths:
        check.links(path)
        if CHAPTER.match(path):
            check.chapter(path)
    if names is None:
        for path in glob.glob(os.path.join(root, 'docs/pictures/*.svg')):
            check.picture(os.path.relpath(path, root))
        check.reachable(paths)
        check.phrases('docs/troubleshooting.md')
    return check.complaints


class Check:
    def __init__(self, root):
        self.root, self.complaints, self.known = root, [], {}

    def page(self, path):
        if path not in self.known:
            self.known[path] = pages.Rendered(path)
        return self.known[path]

    def complain(self, path, text, what):
        """text is what stands in the line that is wrong."""
        with open(os.path.join(self.root, path), encoding='utf-8') as file:
            lines = file.read().split('\n')
        line = next((i for i, line in enumerate(lines, 1) if text in line), 1) if text else 1
        self.complaints.append(f'{path}:{line}: {what}')

    def links(self, path):
        page = self.page(path)
        for link in page.links + [source for source, _ in page.pictures]:
            target = pages.target_of(path, link)
            if not target:
                continue
            file, anchor = target
            if file.startswith('..'):
                self.complain(path, f']({link})', f'{link} leads out of the project')
            elif not os.path.exists(os.path.join(self.root, file)):
                self.complain(path, f']({link})', f'{link} leads nowhere')
            elif anchor and file.endswith('.md') and anchor not in self.page(file).anchors:
                self.complain(path, f']({link})', f'{file} has no heading #{anchor}')
        for source, alt in page.pictures:
            if not (alt or '').strip():
                self.complain(path, f']({source})', f'{source}: say in words what the picture shows')

    def chapter(self, path):
        page = self.page(path)
        if not page.pictures:
            self.complain(path, '', 'a chapter has a picture')
        if page.sections[1][0] == '' or not page.title:
            self.complain(path, '', 'a chapter begins with its title')
        headings = [heading.lower() for _, heading, _ in page.sections]
        for wanted in ('what can go wrong', 'questions'):
            if not any(wanted in heading for heading in headings):
                self.complain(path, '', f'a chapter has a part "{wanted.capitalize()}"')
        with open(os.path.join(self.root, path), encoding='utf-8') as file:
            asked = re.search(r'^## [^\n]*Questions[^\n]*\n(.*?)(?=^## |\Z)', file.read(), re.M | re.S | re.I)
        count = len(re.findall(r'^(?:\d+\.|[-*]) ', asked[1], re.M)) if asked else 0
        if asked and not 4 <= count <= 6:
            self.complain(path, '# Questions', f'{count} questions: 4 to 6 are asked')

    def picture(self, path):
        try:
            root = ElementTree.parse(os.path.join(self.root, path)).getroot()
        except ElementTree.ParseError as error:
            self.complaints.append(f'{path}:{error.position[0]}: not well-formed: {error}')
            return
        wrong = []
        if root.tag != SVG + 'svg' or root.get('role') != 'img' or root.find(SVG + 'title') is None:
            wrong.append('no <svg role="img"> with a <title>')
        if any(element.tag.endswith('}script') for element in root.iter()):
            wrong.append('a script')
        box = (root.get('viewBox') or '').split()
        if len(box) != 4:
            wrong.append('no viewBox')
        else:
            sizes = [float(size) for size in re.findall(r'font(?:-size)?[:=]\s*["\']?(?:\w+ )?(\d+(?:\.\d+)?)(?:px)?',
                                                        ElementTree.tostring(root, encoding='unicode'))]
            small = min(sizes, default=SMALLEST_TEXT) * 720 / float(box[2])
            if small < SMALLEST_TEXT:
                wrong.append(f'text of {small:.1f} pixels where it is 720 wide; {SMALLEST_TEXT} can be read')
        self.complaints += [f'{path}:1: {what}' for what in wrong]

    def phrases(self, path):
        """What stands in a heading as something that weir says must stand in its source, or be the system's word for an error."""
        words = [os.strerror(number) for number in range(1, 134)]
        for name in glob.glob(os.path.join(self.root, '*.c')) + glob.glob(os.path.join(self.root, 'lib/*.c')):
            with open(name, encoding='utf-8') as file:
                words.append(re.sub(r'"\s*"', '', file.read()).replace('\\"', '"'))
        said = '\n'.join(words)
        with open(os.path.join(self.root, path), encoding='utf-8') as file:
            for heading in re.findall(r'^### (.*)$', file.read(), re.M):
                for part in (part.strip(' :') for phrase in re.findall(r'`([^`]+)`', heading) for part in phrase.split('…')):
                    for piece in part.split(': '):
                        if piece and piece not in said:
                            self.complain(path, heading, f'"{piece}" is said nowhere in the source')

    def reachable(self, paths):
        """From the entry, in one step: that is the contents."""
        guide = pages.guide()
        for path in paths:
            if path.startswith('docs/') and path not in guide:
                self.complain(pages.ENTRY, '', f'does not link to {path}')
