// SPDX-License-Identifier: Apache-2.0

/** What the quick run of javac compiles. */
public final class Small {
    public static void main(String[] args) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < 10; i++) {
            text.append(i * i).append(' ');
        }
        System.out.println(text);
    }
}
