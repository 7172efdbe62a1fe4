// Small drawings without a library: sparklines, variety in and out, the algedonic timeline. Each fills an SVG element that exists.
'use strict';

const SVG = 'http://www.w3.org/2000/svg';

function shape(name, attributes) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
}

// values: numbers, or null where nothing was measured, which leaves a hole. top: the least that the full height stands for.
function drawSparkline(svg, values, top) {
    const width = 120;
    const height = 30;
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    svg.setAttribute('preserveAspectRatio', 'none');
    const known = values.filter(value => value !== null);
    const highest = Math.max(top, ...known);
    const step = width / Math.max(1, values.length - 1);
    const y = value => height - 1 - (value / highest) * (height - 3);
    const runs = [];
    let run = null;
    values.forEach((value, index) => {
        if (value === null) {
            run = null;
            return;
        }
        if (run === null) runs.push((run = []));
        run.push([index * step, y(value)]);
    });
    const shapes = [];
    for (const points of runs) {
        if (points.length === 1) points.push([points[0][0] + step / 2, points[0][1]]);
        const line = points.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(' ');
        const [first, last] = [points[0][0], points[points.length - 1][0]];
        shapes.push(shape('polygon', { class: 'area', points: `${first.toFixed(1)},${height} ${line} ${last.toFixed(1)},${height}` }));
        shapes.push(shape('polyline', { class: 'line', points: line }));
    }
    svg.replaceChildren(...shapes);
}

// A trapezoid that narrows from what comes in to what goes out: the attenuation of variety at a glance. share: null where nothing is.
function drawVariety(svg, share) {
    svg.setAttribute('viewBox', '0 0 100 34');
    svg.setAttribute('preserveAspectRatio', 'none');
    const out = 30 * share;
    const top = 17 - out / 2;
    const outer = shape('polygon', { class: 'in', points: '0,2 100,2 100,32 0,32' });
    const inner = shape('polygon', { class: 'out', points: `0,2 100,${top} 100,${top + out} 0,32` });
    svg.replaceChildren(outer, ...(share === null ? [] : [inner]));
}

// signals: {at, kind, intensity}; pain hangs below the line, relief stands above it, an emergency takes the whole height.
function drawTimeline(svg, signals, now, span) {
    const width = Math.max(300, svg.clientWidth || 900);
    const height = 108;
    const zero = 44;
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const shapes = [];
    for (const third of [1, 2]) {
        const x = (width * third) / 3;
        shapes.push(shape('line', { class: 'grid', x1: x, x2: x, y1: 4, y2: height - 4 }));
    }
    shapes.push(shape('line', { class: 'zero', x1: 0, x2: width, y1: zero, y2: zero }));
    for (const signal of signals) {
        const x = width - ((now - signal.at) / span) * width;
        if (x < 0) continue;
        const left = Math.min(width - 4, Math.max(0, x - 2));
        const isRelief = signal.kind === 'pleasure';
        const length = Math.max(4, signal.intensity * (isRelief ? zero - 6 : height - zero - 6));
        const [y, tall] = signal.kind === 'emergency' ? [2, height - 4] : [isRelief ? zero - length : zero, length];
        const bar = shape('rect', { class: signal.kind, x: left, y, width: signal.kind === 'emergency' ? 6 : 4, height: tall, rx: 1 });
        const title = shape('title', {});
        title.textContent = `${signal.kind} ${signal.source}: ${signal.reason}`;
        bar.append(title);
        shapes.push(bar);
    }
    svg.replaceChildren(...shapes);
}
