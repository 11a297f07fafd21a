// Runs in the test's copy of the report, in a frame of the screen's size, and tells the page around it what a reader sees.
const px = document.documentElement.clientWidth;
const box = (element) => element.getBoundingClientRect();
const told = (element) => element.tagName + ' ' + (element.textContent || '').trim().slice(0, 60);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const cross = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
// An edge may end at the box of an answer, whose texts begin a little further in.
const crossed = (svg) => all('path.edge', svg).flatMap((edge) => {
  const length = edge.getTotalLength();
  const points = [...Array(101).keys()].map((i) => edge.getPointAtLength(length * i / 100));
  return all('text', svg).filter((text) => {
    const { x, y, width, height } = text.getBBox();
    return points.some((p) => p.x > x && p.x < x + width && p.y > y && p.y < y + height);
  });
});
const overlapping = (svg) => {
  const texts = all('text', svg);
  return texts.filter((a, i) => texts.slice(i + 1).some((b) => cross(box(a), box(b))));
};
parent.document.documentElement.dataset.seen = JSON.stringify({
  width: innerWidth,
  height: innerHeight,
  dark: matchMedia('(prefers-color-scheme: dark)').matches,
  background: getComputedStyle(document.body).backgroundColor,
  wider: document.documentElement.scrollWidth - px,
  outside: all('body *').filter((e) => box(e).right > px + 0.5 || box(e).left < -0.5).map(told),
  cut: all('.bars > .name').filter((e) => e.scrollWidth > e.clientWidth).map(told),
  crossed: all('svg').flatMap(crossed).map(told),
  overlapping: all('svg').flatMap(overlapping).map(told),
  first: all('h1, h2, dd, .rung > b, .what, code').filter((e) => box(e).bottom <= innerHeight).map((e) => e.textContent.trim()),
});
