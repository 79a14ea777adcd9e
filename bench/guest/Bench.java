// SPDX-License-Identifier: Apache-2.0

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Bench N: N rounds of collections, strings, garbage, arithmetic, lambdas and threads. */
public final class Bench {
    private interface Shape {
        double area();
    }

    private record Square(double side) implements Shape {
        public double area() {
            return side * side;
        }
    }

    private record Disc(double radius) implements Shape {
        public double area() {
            return 3 * radius * radius;
        }
    }

    private static long collections(int seed) {
        Map<Integer, List<String>> groups = new HashMap<>();
        long x = seed + 1;
        for (int i = 0; i < 40000; i++) {
            x = x * 6364136223846793005L + 1442695040888963407L;
            groups.computeIfAbsent((int) (x >>> 54), k -> new ArrayList<>()).add(Long.toString(x, 36));
        }
        long sum = 0;
        for (List<String> group : groups.values()) {
            group.sort(null);
            sum = sum * 31 + group.get(0).hashCode() + group.size();
        }
        return sum;
    }

    private static long matrix(int seed) {
        int size = 120;
        double[][] a = new double[size][size];
        double[][] b = new double[size][size];
        for (int i = 0; i < size; i++) {
            Arrays.setAll(a[i], j -> j % 7 + seed);
            Arrays.setAll(b[i], j -> j % 5 - 2);
        }
        double sum = 0;
        for (int i = 0; i < size; i++) {
            for (int j = 0; j < size; j++) {
                double cell = 0;
                for (int k = 0; k < size; k++) {
                    cell += a[i][k] * b[k][j];
                }
                sum += cell * (i ^ j);
            }
        }
        return (long) sum;
    }

    private static long shapes(int seed) {
        List<Shape> all = IntStream.range(0, 20000)
                .mapToObj(i -> i % 3 == 0 ? new Square(i + seed) : new Disc(i))
                .collect(Collectors.toList());
        return (long) all.stream().filter(s -> s.area() > 100).mapToDouble(Shape::area).sum();
    }

    private static long threads(ExecutorService pool, int seed) throws Exception {
        List<Future<Long>> parts = new ArrayList<>();
        for (int part = 0; part < 8; part++) {
            int from = part * 1000 + seed;
            parts.add(pool.submit(() -> {
                long hash = 17;
                StringBuilder text = new StringBuilder();
                for (int i = from; i < from + 1000; i++) {
                    hash = hash * 31 + text.append(i).length();
                    if (text.length() > 500) {
                        text.setLength(0);
                    }
                }
                return hash;
            }));
        }
        long sum = 0;
        for (Future<Long> part : parts) {
            sum += part.get();
        }
        return sum;
    }

    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(3);
        long sum = 0;
        for (int round = 0; round < Integer.parseInt(args[0]); round++) {
            sum = sum * 7 + collections(round) + matrix(round) + shapes(round) + threads(pool, round);
        }
        pool.shutdown();
        System.out.println(sum);
    }
}
